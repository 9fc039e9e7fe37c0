"""What prepare leaves for the commands after it: where model and data are, and what they turned out to be."""

from typing import Literal

from pydantic import Field

from dporun_api.dataset_report import DataFacts
from dporun_api.document import Document
from dporun_api.results import DatasetSummary


class LintReport(Document):
    """Facts about the preference pairs, by source."""

    train: DataFacts
    validation: DataFacts | None = None
    """Absent when the validation rows were split off from the training data."""
    leaked_prompts: int = Field(0, ge=0)
    """Distinct prompts that are in both the training and the validation data."""


class ModelFacts(Document):
    """The base model, as its files describe it."""

    architecture: str
    """Class of transformers."""
    modalities: tuple[str, ...] = ()
    """What it reads besides text, in words of transformers: image, video, audio."""
    parameters: int = Field(gt=0)
    """Number of parameters; shared ones count once."""
    dtype: str
    """Type of most weights as stored, in torch's words: ``bfloat16``."""
    bytes: int = Field(gt=0)
    """Size of the weights as stored."""
    hidden_size: int = Field(gt=0)
    intermediate_size: int | None = None
    """Width inside the feed-forward block, the widest one; absent where the config does not say."""
    layers: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    """Rows of the token embedding."""
    max_positions: int | None = None
    """Longest sequence, in tokens, that the model was made for, where its config has it."""
    lora_modules: int = Field(gt=0)
    """Layers that get an adapter."""
    lora_parameters: int = Field(gt=0)
    """Trainable parameters."""
    quantized_parameters: int = Field(0, ge=0)
    """Those that training keeps in four bits."""
    takes_dropout: bool = True
    """Whether there can be dropout before the adapter; there is none on experts."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the weights' structure and samples of them; the same for the same base model."""
    warnings: tuple[str, ...] = ()
    """What a user should know of it."""

    @property
    def reads(self) -> str:
        """What it reads besides text, in words for people: ``images, videos and audio``."""
        words = [{"image": "images", "video": "videos"}.get(kind, kind) for kind in self.modalities]
        return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


class Tokens(Document):
    """The pairs in tokens, in the same order."""

    train_path: str
    """Absolute path."""
    validation_path: str
    """Likewise."""
    tokenizer: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the tokenizer's files and chat templates that made these tokens."""


class Prepared(Document):
    """The result of prepare; ``inputs/prepared.json``, written last."""

    version: Literal[1] = 1
    key: str
    """SHA-256 over the parts of the RunConfig that decide the inputs; another key means another preparation."""
    model_path: str
    """Absolute folder of the base model."""
    model_revision: str | None = None
    """Commit on the Hub."""
    model: ModelFacts
    train_path: str
    """Absolute path of JSONL with prompt, chosen and rejected, each a string or a list of messages."""
    validation_path: str
    """The same, held out."""
    tokens: Tokens | None = None
    """The same pairs in tokens; the first version made none."""
    general_path: str | None = None
    """Absolute path of the general questions; absent when the built-in set is used or none is asked."""
    adapter_path: str | None = None
    """Absolute folder of the adapter to start from."""
    dataset: DatasetSummary
    lint: LintReport
