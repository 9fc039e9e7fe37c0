"""Room for checkpoints: what goes to make it, and what never does."""

from pathlib import Path

import pytest

from dporun_trainer import disk
from dporun_trainer.run_folder import room
from dporun_trainer.run_folder.checkpoints import Checkpoints, Marker, mark_complete

KIB = 1024


def saved(checkpoints: Checkpoints, step: int, loss: float, *, size: int = 100 * KIB) -> None:
    folder = checkpoints.folder(step)
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(size))
    mark_complete(folder, Marker(step=step, eval_loss=loss))


@pytest.fixture
def crowded(small_disk: Path) -> Checkpoints:
    """Best, rotated, newest and torn checkpoints of 100 KiB each, and a disk that is full."""
    checkpoints = Checkpoints(small_disk)
    saved(checkpoints, 2, 0.4)
    saved(checkpoints, 4, 0.5)
    saved(checkpoints, 6, 0.6)
    checkpoints.folder(8).mkdir()
    (checkpoints.folder(8) / "weights").write_bytes(bytes(100 * KIB))
    (small_disk / "filler").write_bytes(bytes(disk.free(small_disk)))
    return checkpoints


@pytest.mark.parametrize(
    ("needed", "left"),
    [(0, [2, 4, 6, 8]), (90 * KIB, [2, 4, 6]), (150 * KIB, [2, 6]), (900 * KIB, [2, 6])],
)
def test_torn_ones_go_before_rotated_ones(crowded: Checkpoints, needed: int, left: list[int]) -> None:
    """And never the best or the newest, whatever is missing then."""
    free = room.make_room(crowded, needed)
    assert list(crowded.folders()) == left
    assert (free >= needed) is (needed < 900 * KIB)


def test_a_pruned_one_does_not_fill_the_disk_while_it_is_sent(crowded: Checkpoints) -> None:
    """Nor does what an upload that was killed has held, or a fetch that was."""
    with crowded.held(crowded.complete()[1]) as place:
        assert room.make_room(crowded, 150 * KIB) >= 150 * KIB
        assert not place.exists()
    assert list(crowded.folders()) == [2, 6]


def test_the_next_checkpoint_is_a_little_larger_than_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert room.next_bytes(checkpoints, trainable=1000) == room.estimate(1000) == 16_000
    saved(checkpoints, 2, 0.4, size=1600)
    assert room.next_bytes(checkpoints, trainable=1000) == 1700


@pytest.mark.parametrize(
    ("epochs", "base", "needed"),
    [(1, 10, 18_000 + 10), (3, 10, 48_000), (9, 10, 48_000), (9, 10**6, 18_000 + 10**6)],
)
def test_a_run_needs_its_checkpoints_or_its_merged_model(epochs: float, base: int, needed: int) -> None:
    assert room.run_bytes(1000, base, epochs) == needed
