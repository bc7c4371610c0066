"""The sections of the config with their defaults, and the checks across them.

Every section is frozen and refuses unknown keys. Units stand in each field's description, which is also the source of
the reference in `docs/config.md` and of `coverslip config --schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coverslip.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Section(BaseModel):
    """A frozen group of keys that refuses unknown ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataConfig(Section):
    """What is read, and what its labels mean."""

    path: str | None = None
    """Folder of class folders, or a CSV or Parquet table."""
    image: str = "image"
    """Column of the table that names the image files, or their pattern `images/{Id}_{channel}.png`: columns, and `channel`, in braces."""
    channels: Annotated[list[str], Field(min_length=1)] | dict[str, str] | None = None
    """Channels by name: a list chooses and orders them, a table `new = "old"` also renames; grey or RGB when not given."""
    projection: Literal["max", "mean"] | Annotated[int, Field(ge=0)] | None = None
    """How the planes of a z-stack become one: the brightest or mean value of each pixel, or the plane with this number, from 0."""
    labels: str | Annotated[list[str], Field(min_length=2)] = "label"
    """Column of the table that holds the label; or a list of columns of 0 and 1, one a class, for several labels an image."""
    separator: Literal[" ", "|", ";", ","] | None = None
    """What stands between several labels of one image; one label an image when not given."""
    merge: dict[str, list[str]] = {}
    """New class = list of old classes that it takes the place of."""
    classes: list[str] | str | None = None
    """Class names in order, or a text file with one a line; with several labels an image numbers as labels count into them from 0."""
    keep: list[str] | None = None
    """Several labels an image: the classes that are looked at, after merging; all when not given."""
    drop_rare: Annotated[int, Field(ge=0)] = 0
    """Several labels an image: classes with fewer images are dropped."""
    allow_empty: bool = False
    """Several labels an image: whether an image may carry none, as a sample without any of the classes."""
    positive: str | None = None
    """Binary tasks: the class that sensitivity and precision are about; the second class when not given."""
    background: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] = "#ffffff"
    """Colour under transparent pixels, `#rrggbb`."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """Images that cannot be read: stop with the whole list, or leave them out and record them."""
    on_leak: Literal["stop", "warn"] = "stop"
    """Duplicates or groups on both sides of a split that was given: stop, or go on with a warning."""
    max_pixels: Count = 100_000_000
    """Largest image that is opened, in pixels (height x width)."""

    @field_validator("channels", mode="before")
    @classmethod
    def _channels_are_named(cls, value: object) -> object:
        if value is not None and not isinstance(value, (list, dict)):
            eaten = ", in single quotes as a whole: -s 'data.channels=[\"red\"]'" if str(value).startswith(("[", "{")) else ""
            raise ValueError(f'expected a list of names, such as ["red", "green"], or a table, such as {{ nucleus = "blue" }}{eaten}')
        return value

    @field_validator("labels")
    @classmethod
    def _columns_differ(cls, value: str | list[str]) -> str | list[str]:
        twice = [] if isinstance(value, str) else [name for name in dict.fromkeys(value) if value.count(name) > 1]
        if twice:
            raise ValueError(f"expected each column once; {', '.join(twice)} stands there more than once")
        return value


class SplitConfig(Section):
    """Who is trained on, who chooses, who judges."""

    method: Literal["stratified", "iterative", "random"] = "stratified"
    """`stratified` keeps the share of each class in every part (`iterative`: as with several labels an image); `random` ignores classes."""
    test: Fraction = 0.2
    """Share of rows in the test part."""
    validation: Fraction = 0.1
    """Share of rows in the validation part."""
    folds: Annotated[int, Field(ge=0)] = 0
    """Folds of cross-validation over all rows that are not test; 0 = none."""
    repeats: Count = 1
    """How often the folds are drawn anew."""
    group: str | None = None
    """What must not straddle the split: a column of the table, or `regex:PATTERN` on the file name, on the path where the pattern
    holds a `/` (its first group)."""
    seed: Annotated[int, Field(ge=0)] | Literal["random"] = 0
    """Seed of the split; `random` draws one and records it."""
    preset: str | None = None
    """Column of the table that says train, validation or test."""

    @model_validator(mode="after")
    def _shares_fit(self) -> SplitConfig:
        if self.test + self.validation >= 1:
            raise ValueError(f"test = {self.test} and validation = {self.validation} leave nothing to train on")
        if self.folds == 1:
            raise ValueError("folds = 1 is no cross-validation; say 0, or 2 and more")
        return self


class PixelsConfig(Section):
    """From a decoded image to what the network sees."""

    height: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Rows of the network's input, in pixels; the backbone's own size when not given."""
    width: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Columns of the network's input, in pixels; `height` when not given."""
    fit: Literal["squash", "letterbox", "crop"] = "squash"
    """`squash` changes the aspect ratio and loses nothing; `letterbox` pads; `crop` cuts the ends of the longer side."""
    trim: list[Probability] | Literal["auto", "none"] = "auto"
    """Border that is cut off first: top, left, bottom, right edge as shares of the image; `auto` cuts what is the same in all images."""
    colour: Literal["grey", "rgb", "channels", "auto"] = "auto"
    """`auto`: `channels` where there are named ones, `rgb` when all images have colour, else `grey`: that of some gives classes away."""
    range: Literal["auto", "full", "dataset", "image"] | Range | list[Range] = "auto"
    """What becomes 0 and 1: the integers' `full` range, `percentiles` of the `dataset` or each `image`, [low, high], or one a channel."""
    percentiles: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=2, max_length=2)] = [0.1, 99.9]
    """The percentiles that `range` speaks of, per channel."""
    normalise: Literal["backbone", "dataset", "image", "none"] = "dataset"
    """After `range`. `backbone`: its training mean and deviation; `dataset`: of the training part; `image`: of each; `none`: [0, 1]."""
    invert: bool | Literal["auto"] = "auto"
    """Dark on white becomes bright on black; `auto` inverts when the training images are mostly near white."""

    @model_validator(mode="after")
    def _box_is_a_box(self) -> PixelsConfig:
        if isinstance(self.trim, list) and not (len(self.trim) == 4 and self.trim[0] < self.trim[2] and self.trim[1] < self.trim[3]):
            raise ValueError(f"trim = {self.trim}: expected four shares, top < bottom and left < right, for example [0.1, 0.1, 0.9, 0.9]")
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> PixelsConfig:
        stated = [] if isinstance(self.range, str) else self.ranges(1)
        for name, (low, high) in [("percentiles", tuple(self.percentiles)), *(("range", pair) for pair in stated)]:
            if not low < high:
                raise ValueError(f"{name} = {[low, high]}: expected the lower value first")
        return self

    @property
    def measured(self) -> bool:
        """Whether what the network sees of an image depends on which images it is trained with."""
        return self.normalise == "dataset" or self.range == "dataset"

    def ranges(self, channels: int) -> list[tuple[float, float]]:
        """A stated `range` as (low, high) pairs: as they are, or the only one for each of so many channels."""
        pairs = [(pair[0], pair[1]) for pair in self.range if isinstance(pair, list)]
        return pairs or [(float(self.range[0]), float(self.range[1]))] * channels  # type: ignore[arg-type]


class AugmentConfig(Section):
    """Random changes to training images, drawn anew for each image and step."""

    horizontal_flip: bool = False
    """Mirror left and right in half of the cases."""
    vertical_flip: bool = False
    """Mirror top and bottom in half of the cases."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees; needs square pixels."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation to either side, in degrees."""
    random_crop: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Largest shift in each direction, as a share of the side."""
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Random resized crop: smallest share of the area that is kept; 1 = off."""
    brightness: Probability = 0.0
    """Largest change of brightness and of contrast, as a share of the image's deviation."""
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Largest standard deviation of Gaussian noise, as a share of the image's deviation."""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Parameter of the Beta distribution from which mixing weights are drawn; 0 = off."""

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self != AugmentConfig()


class ModelConfig(Section):
    """Backbone, its weights, and the head on top."""

    backbone: str = "mobilenetv2_100"
    """A timm architecture, `small_30k`, `small_200k`, `small_600k`, `curve_160k`, `curve_630k` (charts of a line), or `alexnet_grey`."""
    weights: str = "pretrained"
    """`pretrained` (COVERSLIP_WEIGHTS, caches, hub), `none` (random), a .safetensors file, or a bundle or run to go on from; also a URL."""
    head: Literal["single", "multi"] | list[Count] = "single"
    """`single`: one linear layer; `multi`: 512 and 256 ReLU units with dropout 0.25 and 0.5; or the sizes of hidden layers."""
    arguments: dict[str, bool | int | float | str] = {}
    """Further arguments for the architecture; `small_*` and `curve_*` take `width` (planes of the stem) and `depth` (blocks a stage)."""
    pooling: Literal["average", "max", "both"] = "average"
    """How the last feature map becomes a vector."""
    first_layer: Literal["repeat", "mean", "zero"] = "repeat"
    """Pretrained RGB filters for other channels: `repeat` (grey: what its RGB copy gives); `mean` or `zero` for those beyond RGB."""
    class_groups: Annotated[int, Field(ge=2)] | list[Annotated[list[str], Field(min_length=1)]] | None = None
    """Several labels an image: a model of its own for each group of classes: so many groups of neighbours, or as named."""


Optimizer = Literal["exact", "adam", "adamw", "sgd", "rmsprop"]
Schedule = Literal["constant", "step", "cosine", "onecycle", "plateau"]


class TrainingConfig(Section):
    """How the weights are learned."""

    regime: Literal["probe", "finetune", "scratch"] = "finetune"
    """`probe`: frozen backbone, cached features; `finetune`: head first, then all layers; `scratch`: all layers from the start."""
    epochs: Count = 10
    """Passes over the training part (or `steps_per_epoch` steps each)."""
    frozen_epochs: Annotated[int, Field(ge=0)] = 1
    """`finetune`: epochs in which only the head learns, on cached features; a `single` head is solved exactly instead; 0 = none."""
    frozen_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """`finetune`: the first layers, up to this share of the multiply-adds, stay as they are; what they give is computed once."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Budget for fitting, in minutes; turned into `steps` after the trial batches, into others should the machine become slower
    or faster later, and takes the place of `epochs`."""
    steps: Count | None = None
    """Number of optimizer steps in all; takes the place of `epochs`. Written by a run that was given `minutes`."""
    batch_size: Count = 32
    """Images per step."""
    steps_per_epoch: Count | None = None
    """Steps that count as an epoch, on images drawn at random; a pass over the training part when not given."""
    views: Annotated[int, Field(ge=0)] = 4
    """Augmented copies of each training image, beside itself, that are cached: features (`probe`), maps (`frozen_share`, `curve_*`)."""
    optimizer: Optimizer = "adamw"
    """`exact` solves a linear head on frozen features (L-BFGS, strength chosen by cross-validation); the others are first-order."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of `sgd`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Largest learning rate of the head (of all layers when `backbone_rate` is 1)."""
    backbone_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the backbone as a share of `learning_rate`."""
    schedule: Schedule = "onecycle"
    """`onecycle` and `cosine` (with warm-up) change every step; `step` at each of `step_at`; `plateau` halves when stuck."""
    step_at: list[Probability] = [1 / 3, 2 / 3]
    """`step`: shares of the training after which the learning rate changes."""
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """`step`: what the learning rate is multiplied by each time."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled for adamw, L2 otherwise; not applied to biases and norms."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0 = no limit."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    class_weights: Literal["none", "balanced", "root"] = "none"
    """Loss weight of a class (of its positives, with several labels an image): equal, by inverse frequency, or by its square root."""
    loss: Literal["entropy", "focal", "asymmetric"] = "entropy"
    """`entropy`: cross-entropy, binary with several labels an image; the others are for several labels: `focal`, `asymmetric`."""
    sampler: Literal["uniform", "balanced"] = "uniform"
    """`balanced` draws images by their rarest class, so that each class is seen about as often."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the running average of the weights that is kept as the model; 0 = off."""
    patience: Count | None = None
    """Epochs without a better validation loss after which training stops."""
    tta: Literal["none", "flips", "turns"] = "none"
    """Scores averaged over mirrored (`flips`: as augmentation allows) or also turned copies."""
    final: Literal["model", "folds"] = "model"
    """After folds: `model`, trained on all rows that are not test; `folds`, their models together (mean logits): better, and slower."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initial weights, sample order, dropout and augmentation."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Of learning: `auto` takes bfloat16 where the hardware gains from it: GPUs, CPUs with AMX, AMD's from Zen 4 on. Frozen features are
    computed in it where it leaves alone what tells images apart; what is judged, saved and used computes in float32."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes a GPU when there is one."""
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    """What computes features of a frozen backbone; `auto`: OpenVINO on a CPU that has it, from 400 images of 224x224 on (views count)."""

    @field_validator("precision", mode="before")
    @classmethod
    def _number_of_bits(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def cuts(self) -> bool:
        """Whether the first layers stay as they are while the others learn."""
        return self.regime == "finetune" and self.frozen_share > 0

    @property
    def together(self) -> bool:
        """Whether the models of the folds are the model that is kept."""
        return self.final == "folds"

    @property
    def frozen_first(self) -> bool:
        """Whether the head is to learn alone before all layers do."""
        return self.regime == "finetune" and self.frozen_epochs > 0


class DecisionConfig(Section):
    """From scores to decisions."""

    threshold: Probability = 0.5
    """Binary tasks: score of the positive class from which it is predicted."""
    sensitivity: Annotated[float, Field(gt=0, le=1)] | None = None
    """Binary tasks: choose the threshold on the validation part so that at least this share of positives is found."""
    thresholds: Literal["fixed", "global", "per_class", "ratio"] = "fixed"
    """Several labels an image: `threshold` for all; one that maximises macro F1; one a class; or those that give the training shares."""
    at_least_one: bool = False
    """Several labels an image: an image without any gets the class whose score is nearest to its threshold."""
    calibrate: bool | Literal["temperature", "platt"] = False
    """Scores scaled by one `temperature`, with several labels by slope and offset a class (`platt`, what `true` means) or one a class."""

    coverage: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """`uncertain` marks decisions so that at most the rest of the images are wrong and not marked; 0.95 needs 19 validation images."""


class BundleConfig(Section):
    """What the trained model keeps of its training images."""

    neighbours: Literal["thumbnails", "features", "none"] = "thumbnails"
    """Feature vectors with labels, names and small pictures; vectors and labels only, for private data; or nothing."""


class IntervalsConfig(Section):
    """The interval on every number."""

    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples."""


class CacheConfig(Section):
    """Decoded pixels and features on disk."""

    limit: Count = 20_000_000_000
    """Largest size of the cache, in bytes; the entries unused for longest go first."""


class MemoryConfig(Section):
    """Images on their way from a store."""

    limit: Annotated[int, Field(ge=1_000_000)] = 2_000_000_000
    """Most memory that images on their way from a store take, in bytes: as files, decoded, and read ahead of the step that needs them."""
    window: Count = 4096
    """Samples that are mixed with each other where shards do not fit into `cache.limit` and are read one after the other."""


class RunConfig(Section):
    """The whole config of a run."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    pixels: PixelsConfig = PixelsConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    decision: DecisionConfig = DecisionConfig()
    bundle: BundleConfig = BundleConfig()
    intervals: IntervalsConfig = IntervalsConfig()
    cache: CacheConfig = CacheConfig()
    memory: MemoryConfig = MemoryConfig()

    def check(self) -> None:
        """Meet every contradiction between sections at once, before any work.

        Raises:
            ConfigError: with one sentence per contradiction, both sides shown.
        """
        problems = [message for broken, message in self._rules() if broken]
        if problems:
            raise ConfigError(problems)

    def _rules(self) -> list[tuple[bool, str]]:
        augment, training, model, pixels = self.augment, self.training, self.model, self.pixels
        square = pixels.width is None or pixels.height == pixels.width
        turned = augment.quarter_turns or training.tta == "turns"
        return [
            (
                pixels.width is not None and pixels.height is None,
                f"pixels.width = {pixels.width} is given without pixels.height; give both, or neither",
            ),
            (
                turned and not square,
                f"quarter turns need square pixels, but pixels.height = {pixels.height} and pixels.width = {pixels.width}",
            ),
            (
                training.optimizer == "exact" and training.regime != "probe",
                f'training.optimizer = "exact" solves a head on frozen features: '
                f'it needs training.regime = "probe", not "{training.regime}"',
            ),
            (
                training.optimizer == "exact" and model.head != "single",
                f'training.optimizer = "exact" solves a linear head: it needs model.head = "single", not {model.head!r}',
            ),
            (
                training.frozen_share > 0 and training.regime != "finetune",
                f"training.frozen_share = {training.frozen_share} keeps the first layers as they are while the others learn: "
                f'it needs training.regime = "finetune", not "{training.regime}"',
            ),
            (
                training.frozen_share > 0 and model.weights == "none",
                f"training.frozen_share = {training.frozen_share} keeps what the first layers have learned, "
                'but model.weights = "none" draws them at random; set one of them',
            ),
            (
                training.final == "folds" and (not self.split.folds or training.regime == "probe"),
                'training.final = "folds" lets the models of the folds answer together: it needs split.folds, and training.regime '
                f'"finetune" or "scratch", not split.folds = {self.split.folds} and "{training.regime}"',
            ),
            (
                training.regime == "probe" and augment.mixup > 0,
                'augment.mixup mixes images while all layers learn; training.regime = "probe" works on cached features',
            ),
            (
                self.decision.sensitivity is not None and self.decision.threshold != 0.5,
                f"decision.sensitivity = {self.decision.sensitivity} chooses the threshold, "
                f"but decision.threshold = {self.decision.threshold} states one",
            ),
            (
                (self.decision.calibrate or self.decision.sensitivity is not None)
                and self.split.validation == 0
                and self.split.preset is None
                and not self.split.folds,
                "decision.calibrate and decision.sensitivity choose on images that were not trained on, but split.validation = 0 "
                "and split.folds = 0; set one of them",
            ),
            (
                training.runtime == "openvino" and training.device == "gpu",
                'training.runtime = "openvino" computes on the CPU, but training.device = "gpu"',
            ),
            (
                training.patience is not None and self.split.validation == 0 and self.split.preset is None,
                f"training.patience = {training.patience} watches the validation part, but split.validation = 0",
            ),
        ]
