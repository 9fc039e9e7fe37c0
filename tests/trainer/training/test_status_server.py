import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dporun_api.results import Metrics, Progress, Stage
from dporun_trainer.progress import ProgressFile
from dporun_trainer.training.status_server import prometheus, respond, serve


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def progress(tmp_path: Path) -> ProgressFile:
    file = ProgressFile(tmp_path / "progress.json")
    file.update(stage=Stage.TRAINING, step=9, total_steps=18, percent=45, metrics=Metrics(train_loss=0.61))
    return file


def test_progress_is_served_as_it_changes(tmp_path: Path, progress: ProgressFile) -> None:
    with serve(tmp_path, -1, host="127.0.0.1") as port:
        status, body = get(port, "/progress")
        assert status == 200
        assert Progress.model_validate_json(body).step == 9
        progress.update(step=10)
        assert json.loads(get(port, "/progress")[1])["step"] == 10


def test_other_paths_are_not_found(tmp_path: Path) -> None:
    with serve(tmp_path, -1, host="127.0.0.1") as port:
        assert get(port, "/")[0] == 404
        assert get(port, "/../etc/passwd")[0] == 404


def test_port_0_means_no_server(tmp_path: Path) -> None:
    with serve(tmp_path, 0) as port:
        assert port == 0


def test_metrics_in_the_format_of_prometheus() -> None:
    text = prometheus(Progress(stage=Stage.TRAINING, step=9, metrics=Metrics(eval_loss=0.5)))
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['dporun_stage{stage="Training"}']) == 1
    assert float(samples["dporun_step"]) == 9
    assert float(samples["dporun_eval_loss"]) == 0.5
    assert "dporun_eta_seconds" not in samples
    for name in samples:
        assert f"# TYPE {name.partition('{')[0]} gauge" in text


def test_a_query_does_not_change_the_path() -> None:
    assert respond("/progress", Progress())[0] == 200
