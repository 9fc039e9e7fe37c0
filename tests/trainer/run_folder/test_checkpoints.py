from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dporun_trainer.run_folder import checkpoints
from dporun_trainer.run_folder.checkpoints import Checkpoint, Checkpoints, Marker


def a_checkpoint(step: int, eval_loss: float | None = None) -> Checkpoint:
    return Checkpoint(Path(f"checkpoint-{step}"), Marker(step=step, eval_loss=eval_loss))


def saved(directory: Path, step: int, eval_loss: float | None = None) -> Checkpoint:
    path = Checkpoints(directory).folder(step)
    (path / f"global_step{step}").mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    (path / f"global_step{step}" / "optimizer.pt").write_bytes(b"moments")
    return checkpoints.mark_complete(path, Marker(step=step, epoch=step / 9, eval_loss=eval_loss))


runs = st.dictionaries(st.integers(0, 200), st.one_of(st.none(), st.floats(0, 3, allow_nan=False)), max_size=12).map(
    lambda losses: [a_checkpoint(step, loss) for step, loss in losses.items()]
)


@given(runs, st.booleans())
def test_the_best_one_is_never_deleted(everything: list[Checkpoint], running: bool) -> None:
    best = checkpoints.best(everything)
    assert best not in checkpoints.to_delete(everything, best, running)


@given(runs)
def test_the_newest_is_kept_while_the_run_may_need_it(everything: list[Checkpoint]) -> None:
    gone = checkpoints.to_delete(everything, checkpoints.best(everything), running=True)
    assert checkpoints.newest_complete(everything) not in gone


@given(runs, st.booleans())
def test_at_most_two_stay(everything: list[Checkpoint], running: bool) -> None:
    gone = checkpoints.to_delete(everything, checkpoints.best(everything), running)
    assert len(everything) - len(gone) <= (2 if running else 1)
    assert all(one in everything for one in gone)


def test_nothing_is_deleted_when_no_best_one_is_known() -> None:
    assert checkpoints.to_delete([a_checkpoint(9), a_checkpoint(18)], None, running=False) == []


@given(runs)
def test_no_validated_checkpoint_has_a_lower_loss_than_the_best(everything: list[Checkpoint]) -> None:
    losses = [one.marker.eval_loss for one in everything if one.marker.eval_loss is not None]
    best = checkpoints.best(everything)
    assert (best is None) == (not everything)
    if best is not None and losses:
        assert best.marker.eval_loss == min(losses)


def test_of_equal_losses_the_earliest_is_best() -> None:
    assert checkpoints.best([a_checkpoint(18, 0.5), a_checkpoint(9, 0.5), a_checkpoint(27, 0.6)]) == a_checkpoint(
        9, 0.5
    )


def test_without_validation_the_newest_is_best() -> None:
    assert checkpoints.best([a_checkpoint(9), a_checkpoint(18)]) == a_checkpoint(18)


def test_complete_checkpoints_come_in_order_of_their_steps(tmp_path: Path) -> None:
    for step in (100, 9, 18):
        saved(tmp_path, step)
    assert [one.step for one in Checkpoints(tmp_path).complete()] == [9, 18, 100]


def lose_the_marker(path: Path) -> None:
    (path / "COMPLETE").unlink()


def tear_the_marker(path: Path) -> None:
    (path / "COMPLETE").write_text('{"step": 1')


def cut_a_file(path: Path) -> None:
    (path / "adapter_model.safetensors").write_bytes(b"wei")


def lose_a_file_of_another_rank(path: Path) -> None:
    (path / "global_step18" / "optimizer.pt").unlink()


def be_a_copy_under_another_name(path: Path) -> None:
    (path / "COMPLETE").write_text(Marker(step=17).to_json())


@pytest.mark.parametrize(
    "harm",
    [lose_the_marker, tear_the_marker, cut_a_file, lose_a_file_of_another_rank, be_a_copy_under_another_name],
)
def test_a_torn_checkpoint_is_ignored(tmp_path: Path, harm: object) -> None:
    saved(tmp_path, 9)
    torn = saved(tmp_path, 18)
    harm(torn.path)  # type: ignore[operator]
    newest = checkpoints.newest_complete(Checkpoints(tmp_path).complete())
    assert newest is not None
    assert newest.step == 9
    assert Checkpoints(tmp_path).torn() == [torn.path]


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-", "checkpoint-9.old", "checkpoint-x", "final"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-5").write_text("a file")
    (tmp_path / "checkpoint-6").symlink_to(tmp_path / "final")
    assert Checkpoints(tmp_path).folders() == {}


def test_a_validation_that_came_later_is_added_to_the_marker(tmp_path: Path) -> None:
    checkpoints.update_marker(saved(tmp_path, 9), eval_loss=0.4)
    (found,) = Checkpoints(tmp_path).complete()
    assert found.marker.eval_loss == 0.4
    assert found.marker.files.keys() == {"adapter_model.safetensors", "global_step9/optimizer.pt"}


def test_pruning_keeps_best_and_newest(tmp_path: Path) -> None:
    for step, loss in ((9, 0.6), (18, 0.4), (27, 0.5), (36, 0.7)):
        saved(tmp_path, step, loss)
    Checkpoints(tmp_path).prune(running=True)
    assert list(Checkpoints(tmp_path).folders()) == [18, 36]
    Checkpoints(tmp_path).prune(running=False)
    assert list(Checkpoints(tmp_path).folders()) == [18]


def test_differences_name_field_and_values() -> None:
    assert checkpoints.differences({"seed": 1, "worldSize": 2}, {"seed": 1, "worldSize": 4}) == [
        "worldSize: 2 then, 4 now"
    ]
