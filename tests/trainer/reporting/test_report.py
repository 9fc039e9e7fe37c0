"""The report: from the files of a run's directory, whichever are there."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from dporun_api.dataset_report import ScoreFacts
from dporun_api.metrics import CHARTS
from dporun_api.results import BestCheckpoint, EvaluationSummary, Failure, Outcome, OutcomeState
from dporun_api.run_config import Evaluation
from dporun_api.v1alpha1.reasons import Reason
from dporun_testing.page import Page
from dporun_testing.paths import UNHEALTHY
from dporun_testing.run_folders import an_evaluation, finished_run
from dporun_trainer.__main__ import main
from dporun_trainer.commands.report import report
from dporun_trainer.diagnosis.health import diagnose
from dporun_trainer.diagnosis.verdict import judge
from dporun_trainer.reporting.numbers import DASH
from dporun_trainer.reporting.report import differences
from dporun_trainer.run_folder import RunFolder

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def page(directory: Path) -> Page:
    return Page(RunFolder(directory).report_html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = finished_run(tmp_path_factory.mktemp("runs") / "polite-1a2b3c4d", answer=EVIL)
    report(RunFolder(directory))
    return directory


def test_verdict_evidence_and_next_action_come_first(run: Path) -> None:
    words = page(run).words
    order = [
        "Good gates passed OnTrack",
        "Accuracy of 92 % (95 % interval 82.4 % to 96.6 %) on 60 validation pairs is good (above 80 %).",
        "Reward margin of 3.68 at beta 0.1 (95 % interval 3.10 to 4.20) is good",
        "Next Use it: final/ is the adapter, merged/ the whole model.",
        "accuracy 0.8 0.92 Passed decided",
        "forgetting 0.1 0.034 Passed not decided; 80 examples would at this value",
        "Training was healthy",
        "Curves",
        "Checkpoints",
        "Answers: base, tuned, chosen",
        "General knowledge",
        "Data",
        "Reproduce",
    ]
    start = words.index("Good gates passed")  # after the links
    positions = [words.index(part, start) for part in order]
    assert positions == sorted(positions)


def test_all_curves_are_drawn_with_the_best_checkpoint_marked(run: Path) -> None:
    html = RunFolder(run).report_html.read_text(encoding="utf-8")
    pictures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(pictures) == len(CHARTS)
    assert all('class="best"' in picture for picture in pictures)
    for title in ("Loss", "Rewards", "Reward margin", "Reward accuracy", "Log-probabilities", "Gradient norm"):
        assert any(f'aria-label="{title}: ' in picture for picture in pictures)


def test_the_page_loads_nothing_and_runs_nothing(run: Path) -> None:
    shown = page(run)
    assert not {tag for tag, _ in shown.tags} & {"script", "img", "link", "iframe", "object", "embed"}
    for _, attributes in shown.tags:
        assert not {name for name in attributes if name.startswith("on") or name in {"src", "srcset"}}
        href = attributes.get("href") or "#"
        assert href.startswith("#") or href == "dataset.html", "the page of the data, beside it"
    assert "url(" not in RunFolder(run).report_html.read_text(encoding="utf-8")


def test_the_data_is_told_by_its_format_and_scores(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(run, tmp_path / "run"))
    prepared = folder.load_prepared()
    scores = ScoreFacts(pairs=8, mean_margin=2.5, ties=2, reversed=1)
    train = prepared.lint.train.model_copy(update={"format": "ShareGPT pairs", "scores": scores})
    folder.prepared.write(prepared.model_copy(update={"lint": prepared.lint.model_copy(update={"train": train})}))
    report(folder)
    words = page(folder.path).words
    assert "Read asShareGPT pairs" in words
    assert "Score margin (mean), ties, reversed2.50, 25 %, 12.5 %" in words


def test_answers_of_models_are_text_never_markup(run: Path) -> None:
    html = RunFolder(run).report_html.read_text(encoding="utf-8")
    assert EVIL not in html
    assert EVIL in page(run).text.replace("\n", "")


def test_regressions_come_first_the_worst_margin_at_the_top(run: Path) -> None:
    words = page(run).words
    assert words.index("What is worse still?") < words.index("What is worse?") < words.index("What is equal?")
    assert words.index("What is equal?") < words.index("What is better?")
    assert "3 worse" in words


def test_differences_are_marked_and_escaped() -> None:
    base, tuned = differences("The answer is <b>4</b> I think.", "Certainly! The answer is <b>5</b> I think.")
    assert base == "The answer is <del>&lt;b&gt;4&lt;/b&gt;</del> I think."
    assert tuned == "<ins>Certainly! </ins>The answer is <ins>&lt;b&gt;5&lt;/b&gt;</ins> I think."
    assert differences("<one> thing", "quite another matter") == ("&lt;one&gt; thing", "quite another matter")


def test_data_checkpoints_and_reproduction(run: Path) -> None:
    words = page(run).words
    assert "train: 2 rows repeat earlier rows" in words
    assert "Step 150 won: its validation loss of 0.05" in words
    assert "Dataset fingerprintabababab" in words
    assert "maxLength: 128" in words
    assert "trl 1.16.0" in words


def test_validations_without_numbers_praise_no_checkpoint(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(copy)
    entries = [
        {key: "NaN" if key in {"eval_loss", "eval_rewards/margins"} else value for key, value in entry.items()}
        for entry in folder.history.load()
    ]
    folder.history.replace(entries)
    folder.progress.update(best_checkpoint=BestCheckpoint(step=150, path="checkpoint-150"))
    report(folder)
    words = page(copy).words
    assert "Step 150 was the last: no checkpoint has a validation loss that is a number." in words
    assert " won:" not in words
    assert "1502not a numbernot a numbernot a number" in words, "step, epoch, loss, accuracy and margin"
    assert "best" not in words


def test_the_same_files_give_the_same_report(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    for path in ("report.html", "report.png", "README.md"):
        (copy / path).unlink()
    report(RunFolder(copy))
    for path in ("report.html", "report.png", "README.md"):
        assert (copy / path).read_bytes() == (run / path).read_bytes()


def test_the_picture_is_a_picture(run: Path) -> None:
    from matplotlib import image

    pixels = image.imread(RunFolder(run).report_png)
    assert pixels.shape == (864, 1200, 4)
    assert len({tuple(pixel) for pixel in pixels[::6, ::6].reshape(-1, 4).tolist()}) > 20


@pytest.mark.parametrize(
    "absent",
    [
        "evaluation",
        "inputs",
        "health.json",
        "verdict.json",
        "log_history.jsonl",
        "training_config.json",
        "progress.json",
    ],
)
def test_any_file_may_be_absent(run: Path, tmp_path: Path, absent: str) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    gone = copy / absent
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    report(RunFolder(copy))
    assert "Reproduce" in page(copy).words


def test_an_evaluation_is_claimed_only_where_there_was_one(run: Path, tmp_path: Path) -> None:
    assert "Its adapter is in final/; the evaluation used it." in page(run).words
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "evaluation")
    report(RunFolder(copy))
    assert "Its adapter is in final/." in page(copy).words


@pytest.mark.parametrize("torn", ["log_history.jsonl", "evaluation/comparison_results.json", "inputs/prepared.json"])
def test_a_broken_file_is_named(run: Path, tmp_path: Path, torn: str) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    (copy / torn).write_text('{"half": \n', encoding="utf-8")
    report(RunFolder(copy))
    assert f"{torn} cannot be read" in page(copy).words


def test_an_empty_directory_gives_a_report_that_says_so(tmp_path: Path) -> None:
    report(RunFolder(tmp_path))
    words = page(tmp_path).words
    assert "Not finished There is no result yet." in words
    assert "Training wrote no log" in words


def test_a_failed_run_says_what_happened_and_what_to_do(tmp_path: Path) -> None:
    shutil.copy(UNHEALTHY / "diverge/log_history.json", tmp_path)
    history = json.loads((tmp_path / "log_history.json").read_text(encoding="utf-8"))
    RunFolder(tmp_path).health.write(diagnose(history))
    failure = Failure(
        reason=Reason.NON_FINITE_LOSS,
        message="the loss was not a number for 3 steps, since step 34",
        hint="Lower spec.training.learningRate.",
        log_tail="step 33 loss 12.1\nstep 34 loss nan <b>",
    )
    outcome = Outcome(state=OutcomeState.FAILED, message=failure.message, failure=failure)
    RunFolder(tmp_path).outcome.write(outcome)

    report(RunFolder(tmp_path))

    words = page(tmp_path).words
    assert "Failed" in words.split("Curves")[1]
    assert "the loss was not a number for 3 steps, since step 34" in words
    assert "Next Lower spec.training.learningRate." in words
    assert "step 34 loss nan <b>" in words
    assert "Training was unstable" in words


def test_the_command_writes_the_report(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    RunFolder(copy).report_html.unlink()
    assert main(["report", str(copy)]) == 0
    assert capsys.readouterr().out.strip() == str(RunFolder(copy).report_html)
    assert RunFolder(copy).report_html.is_file()
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_a_poor_result_asks_for_a_change_of_the_manifest(tmp_path: Path) -> None:
    directory = finished_run(tmp_path / "overfit", source=UNHEALTHY / "overfit")
    config = yaml.safe_load((UNHEALTHY / "overfit/dporun.yaml").read_text(encoding="utf-8"))["spec"]
    evaluation = EvaluationSummary(
        accuracy=0.5, avg_chosen_reward=0.1, avg_rejected_reward=0.2, reward_margin=-0.1, examples=60
    )
    from dporun_trainer.reporting.run_data import read_run_data

    record = read_run_data(RunFolder(directory))
    assert record.config is not None
    verdict = judge(evaluation, record.config.evaluation, record.health)
    RunFolder(directory).verdict.write(verdict)
    report(RunFolder(directory))
    words = page(directory).words
    assert "Needs improvement gates not passed Overfitting" in words
    assert "accuracy 0.8 0.5 Missed decided rewardMargin 2 -0.1 Missed decided" in words
    assert f"betterThanBase 0.05 {DASH} NotMeasured {DASH} forgetting" in words
    rate = f"{float(config['training']['learningRate']):g}"
    assert re.search(rf"Next Change training.learningRate {rate} → \S+ and run again.", words)


def test_a_result_that_is_undecided_asks_for_more_examples(tmp_path: Path) -> None:
    directory = finished_run(tmp_path / "few")
    folder = RunFolder(directory)
    few = {"accuracy": 1.0, "examples": 8, "reward_margin_low": None, "reward_margin_high": None}
    metrics = an_evaluation().model_copy(update=few)
    folder.evaluation.metrics.write(metrics)
    folder.verdict.write(judge(metrics.summary(), Evaluation()))
    report(folder)
    words = page(directory).words
    assert "Fair gates not passed OnTrack" in words
    assert "Next Evaluate it on more examples: 16 decide accuracy." in words


def test_a_run_that_was_still_learning_asks_for_more_epochs(tmp_path: Path) -> None:
    """When its margin is small."""
    directory = finished_run(tmp_path / "short")
    folder = RunFolder(directory)
    metrics = an_evaluation().model_copy(update={"reward_margin": 0.5})
    folder.evaluation.metrics.write(metrics)
    folder.verdict.write(judge(metrics.summary(), Evaluation()))
    report(folder)
    assert "Next The model was still learning: change training.epochs 2 → 4 and run again." in page(directory).words
