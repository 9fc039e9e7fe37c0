"""`devcluster up` leaves nothing running when it does not reach its end."""

import fcntl
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dporun_testing.dev_cluster import IGNORING_SIGNALS, DevCluster, dev_cluster, wait_for_line
from dporun_testing.inner_pytest import inner_pytest
from dporun_testing.kubectl import eventually
from dporun_testing.paths import DEVCLUSTER
from dporun_testing.processes import processes_of, running

pytestmark = [
    pytest.mark.skipif(os.environ.get("CLUSTER") == "current", reason="about the dev cluster, not about yours"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the dev cluster needs root"),
]


@pytest.fixture
def cluster() -> Iterator[DevCluster]:
    with dev_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1), (signal.SIGHUP, 1)])
def test_signals_end_it_although_they_were_ignored(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Stopped while it waits for another one, before it starts anything."""
    command = [*IGNORING_SIGNALS, str(DEVCLUSTER / "devcluster"), "up"]
    environment = {**os.environ, "DPORUN_STATE": str(tmp_path / "state")}
    with (tmp_path / "state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with running(command, grace_seconds=1, env=environment, stderr=subprocess.PIPE, text=True) as up:
            wait_for_line(up, "waiting for another")
            up.send_signal(number)
            assert up.wait(20) == code


@pytest.mark.cluster
def test_an_interrupted_start_leaves_nothing_running(cluster: DevCluster) -> None:
    with cluster.up() as up:
        wait_for_line(up, "starting kube-scheduler")
        programs = " ".join(cluster.processes())
        assert "/etcd " in programs
        assert "/kube-apiserver " in programs
        up.send_signal(signal.SIGINT)
        up.communicate()
    assert up.returncode != 0
    assert cluster.processes() == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{cluster.state.name}"))


@pytest.mark.cluster
def test_an_unread_output_does_not_keep_it_from_stopping(cluster: DevCluster) -> None:
    """Stopped early, while the API server starts."""
    with cluster.up() as up:
        wait_for_line(up, "starting kube-apiserver")
        eventually(lambda: "/kube-apiserver " in " ".join(cluster.processes()), seconds=30, what="the API server runs")
        assert up.stderr
        up.stderr.close()
        up.terminate()
        assert up.wait() != 0
    assert cluster.processes() == []


@pytest.mark.cluster
def test_a_failed_start_says_why_and_leaves_nothing_running(cluster: DevCluster) -> None:
    (cluster.state / "etcd").mkdir(parents=True)
    (cluster.state / "etcd" / "member").write_text("not a folder")
    with cluster.up() as up:
        _, said = up.communicate()
    assert up.returncode == 1
    assert "etcd ended; the end of" in said
    assert "not a directory" in said
    assert cluster.processes() == []


@pytest.mark.cluster
def test_a_test_that_fails_stops_its_cluster(tmp_path: Path) -> None:
    """Both when its cluster is just starting and when ``devcluster up`` is killed and cannot do it."""
    done = inner_pytest(
        tmp_path,
        """
        import pytest
        from dporun_testing.dev_cluster import dev_cluster, wait_for_line

        @pytest.mark.parametrize("killed", [False, True])
        def test_that_fails(killed):
            with dev_cluster() as cluster, cluster.up() as up:
                print("state:", cluster.state)
                wait_for_line(up, "starting kube-apiserver")
                if killed:
                    up.kill()
                assert not cluster.processes()
        """,
    )
    states = set(re.findall(r"state: (\S+)", done.stdout))
    assert len(states) == 2, done.stdout
    assert "2 failed" in done.stdout, done.stdout
    assert [processes_of(Path(state)) for state in states] == [{}, {}]
