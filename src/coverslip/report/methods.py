"""The methods paragraph: what was done, in the past tense, from the files of the run. Says nothing that they do not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coverslip.report.citations import Citations
from coverslip.report.files import RunFiles, items, within
from coverslip.report.methods_images import augmentation, pixels
from coverslip.report.numbers import Shown, count, large, listed, plural, share, shown
from coverslip.structures import PARTS

FAMILIES = (
    "resnet",
    "vgg",
    "mobilenetv2",
    "mobilenetv3",
    "inception_resnet",
    "densenet",
    "convnextv2",
    "convnext",
    "vit",
    "efficientnet",
    "alexnet",
)


def methods(run: RunFiles, part: str | None) -> tuple[list[str], list[str]]:
    """The paragraphs and the references that they cite.

    Args:
        run: the files of a run; what is missing is not spoken of.
        part: the part of `metrics.json` that the headline is about.
    """
    marks = Citations()
    sentences = [
        [*_data(run), *_split(run, marks)],
        [*pixels(run), *augmentation(run, marks)],
        [*_model(run, marks), *_training(run, marks), *_decision(run, marks)],
        [*_evaluation(run, part, marks), *_software(run, marks)],
    ]
    return [" ".join(paragraph) for paragraph in sentences if paragraph], marks.texts


def citation_family(backbone: str) -> str:
    """The key of the reference of an architecture, by the head of its name; empty when there is none.

    >>> citation_family("mobilenetv2_035"), citation_family("wide_resnet50_2"), citation_family("small_30k")
    ('mobilenetv2', '', '')
    """
    return next((family for family in FAMILIES if backbone.startswith(family)), "")


def _data(run: RunFiles) -> list[str]:
    if run.split is None or "label" not in run.split:
        return []
    labels = run.split["label"].dropna()
    multilabel = run.metrics.get("task") == "multilabel"
    names = [str(name) for name in run.metrics.get("classes") or labels.unique()]
    counts = (labels.str.split("|").explode() if multilabel else labels).value_counts()
    text = f"The data set held {plural(len(run.split), 'image')} of {plural(len(names), 'class')}"
    if len(names) <= 6:
        text += f" ({', '.join(f'{name}: {count(counts.get(name, 0))}' for name in names)})"
    merged = within(run.config, "data", "merge")
    joined = [f"{listed([str(old) for old in olds])} into {new}" for new, olds in merged.items() if isinstance(olds, list)]
    return [f"{text}.", *([f"Classes were merged: {'; '.join(joined)}."] if joined else [])]


def _split(run: RunFiles, marks: Citations) -> list[str]:
    if run.split is None or "part" not in run.split:
        return []
    counts = run.split["part"].value_counts()
    parts = [f"{part} (n = {count(counts[part])})" for part in PARTS if counts.get(part, 0)]
    method, seed = str(run.split_facts.get("method") or ""), run.split_facts.get("seed")
    verb = "were given in parts in advance" if method.startswith("preset") else "were divided at random" if method else "were divided"
    how = ", stratified by class" if method.startswith("stratified") else ""
    if method.startswith("stratified iteratively"):
        how = f" by iterative stratification{marks.cite('iterative')}"
    text = (
        f"Images {verb}{how}: {listed(parts)}"
        if len(parts) > 1
        else f"All images were in one part: {parts[0]}"
        if parts
        else "Images were divided"
    )
    sentences = [text + (f" (seed {seed})." if seed is not None and method and not method.startswith("preset") else ".")]
    if "groups and duplicates kept together" in method:
        group = within(run.config, "split").get("group")
        named = f"Images of one group ({group}) and duplicate images" if group else "Duplicate images"
        sentences.append(f"{named} were kept in the same part.")
    numbers = within(run.metrics, "folds")
    folds, repeats = fold_counts(numbers)
    if folds:
        again = f", repeated {repeats} times with new folds" if repeats > 1 else ""
        tested = bool(counts.get("test", 0))
        on = "on all images that were not in the test part" if tested else "on all images, and the final model was trained on all of them"
        sentences.append(f"Performance was {'also ' if tested else ''}estimated by {folds}-fold cross-validation{again}, {on}.")
    return sentences


def fold_counts(numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Folds and repeats of the `folds` part of `metrics.json`; zeros without it."""
    each = [entry for entry in numbers.get("each") or [] if isinstance(entry, Mapping)]
    folds = {entry.get("fold") for entry in each}
    repeats = {entry.get("repeat", 0) for entry in each}
    return len(folds), len(repeats)


def _model(run: RunFiles, marks: Citations) -> list[str]:
    model, training = within(run.config, "model"), within(run.config, "training")
    backbone = model.get("backbone") or within(run.environment, "provenance").get("backbone")
    if not backbone:
        return []
    text = f"The classifier was {_article(str(backbone))} {backbone} network{marks.cite(citation_family(str(backbone)))}"
    if not model:
        return [f"{text}, trained before."]
    weights = within(run.environment, "weights")
    if model.get("weights") == "none":
        text += ", initialised at random"
    elif weights.get("sha256"):
        text += f", initialised with trained weights (SHA-256 {str(weights['sha256'])[:16]}…)"
    else:
        text += ", initialised with trained weights"
    head = model.get("head")
    heads = {
        "single": "a single linear layer",
        "multi": "hidden layers of 512 and 256 rectified linear units (dropout 0.25 and 0.5) and a linear layer",
    }
    if isinstance(head, list) and head:
        heads[str(head)] = f"hidden layers of {listed([str(size) for size in head])} units and a linear layer"
    text += f", with {heads[str(head)]} as its head" if str(head) in heads else ""
    total, trained = run.summary.get("weights"), run.summary.get("trainable_weights")
    if isinstance(total, int) and total > 0:
        text += f"; it had {large(total)} weights"
        if isinstance(trained, int) and trained != total and training.get("regime") == "probe":
            text += f", {large(trained)} of them trained"
    return [f"{text}.", *_first_layer(run), *_lines(str(backbone)), *_pooling(model), *_groups(model)]


def _first_layer(run: RunFiles) -> list[str]:
    """How pretrained RGB filters were made to fit other channels; nothing for RGB and for random weights."""
    model, channels = within(run.config, "model"), [*items(run.summary, "input"), 3][0]
    policy = FIRST_LAYERS.get(str(model.get("first_layer")))
    if model.get("weights") == "none" or policy is None or channels in (1, 3):
        return []
    return [f"The pretrained filters of the first layer, made for RGB, were {policy} to fit {channels} channels."]


def _lines(backbone: str) -> list[str]:
    if not backbone.startswith("curve_"):
        return []
    return [
        "It read from each column of a chart where the line began, ended and had its middle, and how much of it there was, and looked "
        "along the columns; in training these profiles were stretched, shifted and raised a little at random."
    ]


def _pooling(model: Mapping[str, Any]) -> list[str]:
    ways = {"max": "its maximum", "both": "its mean and its maximum"}
    return [f"The last feature map was pooled by {ways[str(model['pooling'])]}."] if model.get("pooling") in ways else []


def _groups(model: Mapping[str, Any]) -> list[str]:
    asked = model.get("class_groups")
    number = len(asked) if isinstance(asked, list) else asked
    if not isinstance(number, int) or not number:
        return []
    return [f"The classes were divided into {count(number)} groups, and a model of its own was trained for each."]


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"


def _training(run: RunFiles, marks: Citations) -> list[str]:
    training = within(run.config, "training")
    regime, optimizer = training.get("regime"), str(training.get("optimizer"))
    if not regime:
        return []
    augment = within(run.config, "augment")
    augmented = any(value for key, value in augment.items() if key != "crop_scale") or augment.get("crop_scale", 1.0) != 1.0
    views = f" and of {training.get('views')} augmented copies of each training image" if augmented and training.get("views") else ""
    sentences = []
    if regime == "probe":
        sentences.append(
            f"The backbone was kept frozen; its features of each image{views} were computed once, and only the head was trained."
        )
    if optimizer == "exact":
        sentences.append(
            f"The head was fitted by L-BFGS{marks.cite('exact')}, with the strength of the L2 penalty chosen by cross-validation."
        )
        return sentences
    frozen, exact_head = training.get("frozen_epochs"), within(run.config, "model").get("head") == "single"
    if regime == "finetune" and frozen and within(run.config, "model").get("weights") != "none":
        first = "fitted" if exact_head else f"trained for {plural(int(frozen), 'epoch')}"
        sentences.append(f"The head was first {first} on the features of the frozen backbone; then {_learners(training, views)}.")
    elif regime != "probe":
        sentences.append("All layers were trained from the start.")
    several = run.metrics.get("task") == "multilabel"
    loss = LOSSES[str(training.get("loss") or "entropy")] if several else "the cross-entropy"
    loss = loss.format(cite=marks.cite(str(training.get("loss"))) if several else "")
    together = ["The models of all folds answer together, with the mean of their logits."] if training.get("final") == "folds" else []
    learned = [_optimisation(training, optimizer, loss, marks), *_regularisation(training, marks, several=several)]
    return [*sentences, *learned, *_undone(run), *together]


def _undone(run: RunFiles) -> list[str]:
    """What is to be said where the weights before the first step of all layers were kept."""
    if run.history is None or not {"phase", "step", "kept", "fold"} <= set(run.history.columns):
        return []
    last = run.history[run.history["fold"].isna() & (run.history["phase"] == "all")]
    kept = last[last["kept"].astype(str) == "True"]
    if kept.empty or kept["step"].iloc[-1] != 0 or last["step"].max() == 0:
        return []
    return [
        "On the validation part the weights before the first of these steps did best, and they were kept in place of those after the last."
    ]


def _learners(training: Mapping[str, Any], views: str) -> str:
    share = float(training.get("frozen_share") or 0)
    if not share:
        return "all layers were trained"
    below = f"the first {share:.0%} of the multiply-adds, whose output for each image{views} was computed once"
    return f"the layers above {below}, were trained"


def _optimisation(training: Mapping[str, Any], optimizer: str, loss: str, marks: Citations) -> str:
    names = {
        "adam": "Adam",
        "adamw": "AdamW",
        "rmsprop": "RMSprop",
        "sgd": f"stochastic gradient descent (momentum {training.get('momentum')})",
    }
    schedules = {
        "constant": "a constant learning rate of {}",
        "step": f"a learning rate of {{}}, times {training.get('step_factor', 0.1):g} after each of {{at}} of the training",
        "cosine": "a learning rate of {} with warm-up and cosine decay{cite}",
        "onecycle": "a one-cycle learning rate{cite} of at most {}",
        "plateau": "a learning rate of {}, halved when the validation loss did not improve",
    }
    schedule = str(training.get("schedule"))
    text = f"Training minimised {loss} with {names.get(optimizer, optimizer)}{marks.cite(optimizer)}"
    template = schedules.get(schedule, "a learning rate of {}")
    text += " and " + template.format(f"{training.get('learning_rate'):g}", cite=marks.cite(schedule), at=_moments(training))
    if training.get("backbone_rate", 1.0) != 1.0:
        text += f" ({training.get('backbone_rate'):g} times that for the backbone)"
    at_most = "at most " if training.get("patience") else ""
    if training.get("steps"):
        text += f", for {at_most}{plural(int(training['steps']), 'step')}"
    elif training.get("epochs"):
        each = f" of {count(training['steps_per_epoch'])} steps" if training.get("steps_per_epoch") else ""
        text += f", for {at_most}{plural(int(training['epochs']), 'epoch')}{each}"
    return f"{text} of {training.get('batch_size')} images."


def _moments(training: Mapping[str, Any]) -> str:
    return listed([f"{100 * float(moment):.0f} %" for moment in training.get("step_at") or (1 / 3, 2 / 3)])


def _regularisation(training: Mapping[str, Any], marks: Citations, *, several: bool) -> list[str]:
    weights = {"balanced": "the inverse frequency of its class", "root": "the square root of the inverse frequency of its class"}
    kind = "decoupled weight decay" if training.get("optimizer") == "adamw" else "an L2 penalty (weight decay)"
    parts = [
        (training.get("weight_decay"), f"{kind} of {training.get('weight_decay')}"),
        (training.get("gradient_clip"), f"clipping of the gradient’s norm at {training.get('gradient_clip')}"),
    ]
    used = [phrase for active, phrase in parts if active]
    if training.get("label_smoothing"):
        used.append(f"label smoothing{marks.cite('label_smoothing')} of {training['label_smoothing']}")
    sentences = [f"Training used {listed(used)}."] if used else []
    if training.get("class_weights") in weights:
        weighted = "the positives of each class were" if several else "each image was"
        sentences.append(f"In the loss, {weighted} weighted by {weights[str(training['class_weights'])]}.")
    if training.get("sampler") == "balanced":
        sentences.append("Images were drawn by their rarest class, so that the classes were seen about equally often.")
    if training.get("ema"):
        sentences.append(f"The model was a running average of the weights{marks.cite('ema')} (decay {training['ema']}).")
    if training.get("patience"):
        sentences.append(f"Training was to stop after {plural(int(training['patience']), 'epoch')} without a better validation loss.")
    return sentences


def _decision(run: RunFiles, marks: Citations) -> list[str]:
    decision, tta = within(run.config, "decision"), within(run.config, "training").get("tta")
    chosen_on = "out-of-fold scores" if fold_counts(within(run.metrics, "folds"))[0] else "the validation part"
    copies = {"flips": "mirrored copies", "turns": "mirrored and turned copies"}
    if not any(within(run.config, "augment").get(key) for key in ("horizontal_flip", "vertical_flip", "quarter_turns")):
        copies = {}
    sentences = [f"Scores were averaged over {copies[str(tta)]} of each image."] if str(tta) in copies else []
    if decision.get("calibrate"):
        several = run.metrics.get("task") == "multilabel"
        line = several and decision["calibrate"] != "temperature"
        way = "a logistic line" if line else f"temperature scaling{marks.cite('calibrate')}"
        way += " for each class, shrunk towards the common one," if several else ""
        sentences.append(f"Scores were calibrated by {way} on {chosen_on}.")
    judged = [run.metrics, *(within(run.metrics, part) for part in ("test", "folds", "validation"))]
    positive = next((each["positive"] for each in judged if each.get("positive")), None)
    threshold = next((each["threshold"] for each in judged if each.get("threshold") is not None), None)
    if run.metrics.get("task") == "binary" and positive and isinstance(threshold, (int, float)):
        text = f"An image was called {positive} from a score of {threshold:.3g}"
        wanted = decision.get("sensitivity")
        sentences.append(f"{text}, chosen on {chosen_on} for a sensitivity of at least {share(wanted)}." if wanted else f"{text}.")
    if run.metrics.get("task") == "multilabel":
        words = THRESHOLD_WORDS[str(decision.get("thresholds") or "fixed")]
        sentences.append(words.format(decision.get("threshold", 0.5), chosen_on=chosen_on))
        if decision.get("at_least_one"):
            sentences.append("An image that no class reached was given the nearest one.")
    return sentences


FIRST_LAYERS = {
    "repeat": "repeated in turn",
    "mean": "averaged for the channels beyond RGB",
    "zero": "set to zero for the channels beyond RGB",
}
LOSSES = {
    "entropy": "the binary cross-entropy of each label",
    "focal": "the focal loss{cite} of each label",
    "asymmetric": "the asymmetric loss{cite} of each label",
}
THRESHOLD_WORDS = {
    "fixed": "A label was given from a score of {} on.",
    "global": "A label was given from a score on, one for all classes, that maximised macro F1 on {chosen_on}.",
    "per_class": "A label was given from a score on that maximised the F1 of its class on {chosen_on}, cross-fitted and shrunk "
    "towards the threshold that is best for all classes.",
    "ratio": "A label was given from a score on by which each class is given as often as in the training part.",
}
NAMED = {
    "accuracy": "accuracy",
    "macro_f1": "macro-averaged F1",
    "roc_auc": "the area under the ROC curve",
    "micro_f1": "micro-averaged F1",
    "macro_roc_auc": "the area under the ROC curve, averaged over the classes,",
}
"""Numbers that the methods paragraph names, as far as the task has them, and how."""


def _evaluation(run: RunFiles, part: str | None, marks: Citations) -> list[str]:
    numbers = within(run.metrics, part or "")
    if not numbers:
        return []
    level = interval_level(run)
    named = [(name, number) for name in NAMED if (number := shown(numbers.get(name))) is not None]
    where = {
        "test": "On the test part, which was used for neither training nor any choice" if run.config else "On a labelled set of its own",
        "folds": "In cross-validation, on images held out from training",
        "validation": "On the validation part",
    }
    size = numbers.get("n")
    n = f" (n = {count(size)})" if isinstance(size, int) else ""
    values = [_valued(name, number, level) for name, number in named if number.value is not None]
    sentences = [f"{where.get(part or '', 'On the images given')}{n}, {listed(values)}."] if values else []
    made = " ".join(number.method for name in numbers if (number := shown(numbers[name])) is not None)
    kinds = []
    if "exact" in made:
        kinds.append(f"the exact binomial method{marks.cite('clopper')}")
    if "wilson" in made.lower():
        kinds.append(f"Wilson’s method{marks.cite('wilson')}")
    if "over groups" in made:
        kinds.append(f"the bootstrap over groups{marks.cite('groups')}")
    elif "bootstrap" in made:
        kinds.append(f"the bootstrap{marks.cite('bootstrap')}")
    resamples = within(run.config, "intervals").get("resamples")
    drawn = f" ({count(resamples)} resamples)" if resamples and "bootstrap" in made else ""
    return [*sentences, *([f"Intervals came from {listed(kinds)}{drawn}."] if kinds else [])]


def interval_level(run: RunFiles) -> str:
    """The level of the intervals as text, `95 %`; empty when no file says it."""
    level = run.metrics.get("level", within(run.config, "intervals").get("level"))
    return f"{100 * level:g}\u00a0%" if isinstance(level, float) else ""


def _valued(name: str, number: Shown, level: str) -> str:
    value, ends = (number.percent, number.interval_percent) if name == "accuracy" else (number.text, number.interval)
    return f"{NAMED[name]} was {value}" + (f" ({level + ' ' if level else ''}interval {ends})" if ends else "")


def _software(run: RunFiles, marks: Citations) -> list[str]:
    versions = within(run.environment, "versions")
    cited = {"torch": "PyTorch", "timm": "timm", "scikit-learn": "scikit-learn"}
    used = [f"{title} {versions[key]}{marks.cite(key)}" for key, title in cited.items() if versions.get(key)]
    if not versions.get("coverslip"):
        return [f"Computations used {listed(used)}."] if used else []
    python = f" under Python {versions['python']}" if versions.get("python") else ""
    on = f", on {listed(used)}" if used else ""
    device = run.environment.get("device")
    where = f" They ran on {device}{_arithmetic(run)}." if isinstance(device, str) and device else ""
    return [f"All computations were done with coverslip {versions['coverslip']}{python}{on}.{where}"]


def _arithmetic(run: RunFiles) -> str:
    """In which precision, and what of it by OpenVINO; heads on cached features learn in 32 bits on every machine."""
    probing = within(run.config, "training").get("regime") == "probe"
    said = {
        "32": " in 32-bit floating point",
        "bf16": " in bfloat16 mixed precision for learning and in 32-bit floating point for all scores",
    }.get("32" if probing else str(run.environment.get("precision")), "")
    engine, precision = (str(run.environment.get(f"features_{what}") or "") for what in ("runtime", "precision"))
    half = {"bf16": " in bfloat16", "32 and bf16": " partly in bfloat16"}.get(precision, "")
    by = f" by OpenVINO {engine.rsplit(maxsplit=1)[-1]}" if engine.startswith("openvino") else ""
    return said + (f", features of the frozen backbone{half}{by}" if half or by else "")
