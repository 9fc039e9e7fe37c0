"""Manifests are judged offline as the API server judges them; the cases are those of tests/api."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dporun_cli.manifest import ManifestError, read
from dporun_testing.manifests import dporun
from dporun_testing.paths import REFUSED, ROOT

EXAMPLES = [*sorted(ROOT.glob("examples/*/dporun*.yaml")), ROOT / "charts/dporun-operator/files/example.yaml"]


def problems(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(path)
    return [
        f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in caught.value.problems
    ]


def written(folder: Path, text: str | dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


@pytest.mark.parametrize("case", REFUSED, ids=lambda path: path.stem)
def test_a_wrong_manifest_is_refused_with_what_to_write_instead(case: Path, tmp_path: Path) -> None:
    expected = yaml.safe_load(case.read_text())
    (problem,) = problems(written(tmp_path, dporun("wrong", expected["spec"])))
    assert expected["offline"] in problem


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_right(path: Path) -> None:
    assert read(path)


def test_numbers_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    text = """
        apiVersion: dporun.io/v1alpha1
        kind: DPORun
        metadata: {name: numbers}
        spec:
          model: {uri: hf://a/b}
          dataset: {train: s3://bucket/train.jsonl}
          training: {learningRate: 5e-6, epochs: 2}
          resources: {requests: {cpu: 8, memory: 64Gi}, nodeSelector: {rack: 1:30}}
    """
    (manifest,) = read(written(tmp_path, text))
    assert manifest.spec.training.learning_rate == 5e-6
    assert manifest.spec.resources.requests == {"cpu": "8", "memory": "64Gi"}
    assert manifest.spec.resources.node_selector == {"rack": "1:30"}


def test_null_means_absent_but_opens_a_gate(tmp_path: Path) -> None:
    spec = {"training": {"epochs": None}, "image": None, "evaluation": {"gates": {"accuracy": None}}}
    body = dporun("nulls")
    body["spec"] |= spec
    (manifest,) = read(written(tmp_path, body))
    assert manifest.spec.training.epochs == 2
    assert manifest.spec.evaluation.gates.accuracy is None
    assert manifest.spec.evaluation.gates.reward_margin == 2.0


def test_every_problem_is_named_with_its_line(tmp_path: Path) -> None:
    text = (
        "apiVersion: dporun.io/v1\n"
        "kind: DPORun\n"
        "metadata:\n"
        "  name: Not_A_Name\n"
        "spec:\n"
        "  model:\n"
        "    uri: hf://a/b\n"
        "  training:\n"
        "    epochs: 0\n"
        "    seeed: 1\n"
    )
    path = written(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        read(path)
    assert [(problem.line, problem.path) for problem in caught.value.problems] == [
        (1, "apiVersion"),
        (4, "metadata.name"),
        (5, "spec.dataset"),
        (9, "spec.training.epochs"),
        (10, "spec.training.seeed"),
    ]
    assert caught.value.lines()[0] == f"{path}:1: apiVersion: write dporun.io/v1alpha1"


def test_other_objects_of_the_file_are_passed_over(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}
    text = yaml.safe_dump_all([secret, dporun("first"), dporun("second")])
    assert [manifest.name for manifest in read(written(tmp_path, text))] == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "is not YAML"),
        ("kind: DPORun\nspec: \x01\n", "is not YAML"),
        ("kind: DPORun\nspec: &spec [*spec]\n", "is not YAML"),
        ("kind: DPORun\nkind: DPORun\n", "the key 'kind' is given twice"),
        ("kind: Secret\n", "contains no object of kind DPORun"),
        ("", "contains no object of kind DPORun"),
        ("just text", "is not a Kubernetes object"),
        ("kind: DPORun\nspec: 3\n", "spec: must be an object"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(text: str, words: str, tmp_path: Path) -> None:
    assert any(words in problem for problem in problems(written(tmp_path, text)))
