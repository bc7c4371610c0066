"""The story of an export: make the graph, prove it, write it, remember what was proven."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from coverslip.config import parse_overrides
from coverslip.data.decoding import PixelArray
from coverslip.data.images import to_colour
from coverslip.data.inputs import list_samples
from coverslip.errors import ExportError, InputError
from coverslip.export.bioimageio import Credits, packaged_graph, write_package
from coverslip.export.openvino_files import write_openvino
from coverslip.export.parity import Parity, Score, as_graph_takes, compare_with_torch, decoded, depth_of
from coverslip.export.quantising import Cost, calibration_rows, cost_of, quantised
from coverslip.graphs import raw_graph
from coverslip.inference.onnx_runtime import open_session, run_session
from coverslip.models.licences import SPDX
from coverslip.models.openvino import compile_model
from coverslip.predict import Judged, Model
from coverslip.runtime import Progress, cpu_count, hash_file, no_progress, package_versions, write_json, writing
from coverslip.storage import Place, output_file
from coverslip.storage import place as as_place
from coverslip.structures import File, FloatArray

if TYPE_CHECKING:
    import onnx

Format = Literal["onnx", "openvino", "bioimageio"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "bioimageio": ".zip"}
RECORD = "exports.json"
"""In the bundle: what was exported, and the parity that was found."""
_PACKAGES = ("coverslip", "torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        path: the file.
        parity: its comparison with torch.
        small: the file in 8 bits, and what that costs; None when not asked for.
        notes: sentences on what was left out.
    """

    path: Place
    parity: Parity
    small: tuple[Place, Cost] | None = None
    notes: tuple[str, ...] = ()


def export_bundle(
    bundle: str | Path,
    form: Format,
    out: str | Place,
    *,
    check: Sequence[str | Path] = (),
    data: str | Path | None = None,
    settings: Sequence[str] = (),
    quantise: bool = False,
    depth: int | None = None,
    authors: Sequence[str] = (),
    licence: str | None = None,
    progress: Progress = no_progress,
) -> Exported:
    """Write a model for other programs, once it has been proven to give torch's scores there.

    The bundle remembers in exports.json what was found.

    Args:
        bundle: a bundle or run folder.
        form: `onnx`, one file; `openvino`, .xml and .bin; `bioimageio`, a .zip.
        out: the file, or its URL; its ending is added where it has none.
        check: more images, folders or tables on which the graph is compared with torch; the bundle's sample always is.
        data: a labelled set, on which the graph is compared as well, and the cost of 8 bits is measured.
        settings: `data.*` and `split.group` keys for `data`.
        quantise: write the network in 8 bits, too, as `<name>-int8`.
        depth: bits of the pixels that the graph takes, 8 or 16; those that the model keeps when None.
        authors: names that a bioimage.io package gives as its authors.
        licence: the SPDX identifier under which others may use the package; that of the backbone's weights when None.
        progress: told about long work.

    Raises:
        MissingExtraError: the extra `export` or `openvino` is not installed.
        ExportError: the model cannot be written in this form, or gives other scores there: then nothing is written.
        InputError: a wrong ending, `quantise` without `data`, authors or a licence of other files than packages.
    """
    if form != "bioimageio" and (authors or licence):
        raise InputError("--author and --licence stand in packages: say --format bioimageio")
    said, target = Credits.of(authors, licence), as_place(out)
    with output_file(target) as file:
        made = _export(bundle, form, file, check, data, settings, said, quantise=quantise, depth=depth, progress=progress)
    if isinstance(target, Path):
        return made
    small = None if made.small is None else (target.parent / made.small[0].name, made.small[1])
    return replace(made, path=target.parent / made.path.name, small=small)


def _export(
    bundle: str | Path, form: Format, out: Path, check: Sequence[str | Path], data: str | Path | None, settings: Sequence[str],
    said: Credits, *, quantise: bool, depth: int | None, progress: Progress,
) -> Exported:  # fmt: skip
    place = _place(out, form)
    if quantise and data is None:
        raise InputError("--quantise measures what 8 bits cost: say --data with a labelled set")
    model = Model(bundle, device="cpu", runtime="torch")
    said = said if said.licence else replace(said, licence=SPDX.get((model.bundle.provenance.get("licence") or "").casefold(), ""))
    bits = depth_of(model.bundle, depth)
    judged = model.judge(data, progress, parse_overrides(settings)) if data is not None else None
    samples = [*_sample_files(model), *_more(model, check), *(judged.table.samples if judged else [])]
    graph = raw_graph(model.bundle, bits)
    with writing(place) as temporary:
        _write(form, model, graph.SerializeToString(), bits, temporary, said)
        parity = compare_with_torch(_scorer(form, temporary), model.bundle, samples, bits, progress).demand(place.name)
        if form == "openvino":
            _move_weights(temporary, place)
    small = None
    if quantise and judged is not None:
        small = _small(form, model, graph, bits, place, judged, said)
    _remember(model.folder, form, place, parity, small)
    left = f"{parity.left_out} images were not compared: they cannot be read, or have more than {bits} bits a pixel"
    notes = (left if parity.left_out else "", said.missing if form == "bioimageio" else "")
    return Exported(place, parity, small, tuple(note for note in notes if note))


def _place(out: Path, form: Format) -> Path:
    """The file to write.

    Raises:
        InputError: its ending is that of something else.
    """
    ending = ENDINGS[form]
    if out.suffix.lower() == ending:
        return out
    if out.suffix and not out.is_dir():
        raise InputError(f"--out {out}: expected a name that ends in {ending} for --format {form}")
    return out / f"model{ending}" if out.is_dir() else out.with_name(out.name + ending)


def _sample_files(model: Model) -> list[tuple[File, ...]]:
    names = json.loads((model.folder / "sample" / "expected.json").read_text(encoding="utf-8"))["images"]
    return [(model.folder / "sample" / Path(name).name,) for name in names]


def _more(model: Model, check: Sequence[str | Path]) -> list[tuple[File, ...]]:
    return list_samples(check, model.data_config())[0] if check else []


def _write(form: Format, model: Model, graph: bytes, depth: int, temporary: Path, said: Credits) -> None:
    if form == "onnx":
        temporary.write_bytes(graph)
    elif form == "openvino":
        write_openvino(graph, temporary)
    else:
        write_package(temporary, model.bundle, graph, _card(model), _test_image(model, depth), said)


def _card(model: Model) -> str:
    return (model.folder / "README.md").read_text(encoding="utf-8")


def _test_image(model: Model, depth: int) -> tuple[PixelArray, FloatArray]:
    """A sample with the channels that the model looks at, (1, h, w, c), and torch's scores of it."""
    bundle = model.bundle
    for files in _sample_files(model):
        image = bundle.reading.read(files)[0]
        image = image if bundle.reading.channels else to_colour(image, len(bundle.network.geometry.channels))
        taken = as_graph_takes(image, depth)
        if taken is not None:
            return taken[None], bundle.scores([bundle.network.geometry.apply(taken)[None]])
    raise ExportError(f"no image of the bundle's sample has {depth} bits a pixel; say --depth 16")


def _scorer(form: Format, file: Path) -> Score:
    """What another program would do with the file."""
    if form == "openvino":
        compiled = compile_model(file)
        return lambda pixels: np.asarray(compiled({0: pixels})[0], dtype=np.float64)
    session = open_session(packaged_graph(file) if form == "bioimageio" else file, cpu_count())
    return lambda pixels: run_session(session, pixels)


def _move_weights(temporary: Path, place: Path) -> None:
    """Put the weights of an OpenVINO file in place, before the file itself follows."""
    temporary.with_suffix(".bin").replace(place.with_suffix(".bin"))


def _small(form: Format, model: Model, graph: onnx.ModelProto, depth: int, place: Path, judged: Judged, said: Credits) -> tuple[Path, Cost]:
    """Write the network in 8 bits, and measure what that costs."""
    predictions, table = judged.predictions, judged.table
    rows = calibration_rows(len(table))
    chosen = decoded(model.bundle, [table.samples[row] for row in rows], depth)
    small = place.with_name(f"{place.stem}-int8{place.suffix}")
    with writing(small) as temporary:
        file = temporary.with_suffix(".onnx")
        quantised(graph, (image for part in chosen for image in part if image is not None), file)
        sizes = (file.stat().st_size, graph.ByteSize())
        if form == "openvino":
            write_openvino(file, temporary)
        score = _scorer("openvino" if form == "openvino" else "onnx", temporary if form == "openvino" else file)
        cost = cost_of(score, model.bundle, table, predictions, rows, depth, sizes)
        if form == "openvino":
            _move_weights(temporary, small)
        elif form == "bioimageio":
            image = _test_image(model, depth)[0]
            card = f"{_card(model)}\n## In 8 bits\n\nThe network of this package is computed in 8 bits. {cost.sentence}.\n"
            write_package(temporary, model.bundle, file.read_bytes(), card, (image, score(image)), said, coarse=True)
    return small, cost


def _remember(folder: Path, form: Format, place: Path, parity: Parity, small: tuple[Path, Cost] | None) -> None:
    """Write down in the bundle what was exported and proven; the newest of each format stays."""
    record = folder / RECORD
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    entry: dict[str, Any] = {
        "file": place.name, "sha256": hash_file(place), "parity": parity.to_json(), "versions": package_versions(*_PACKAGES),
    }  # fmt: skip
    if small is not None:
        entry["int8"] = {"file": small[0].name, "sha256": hash_file(small[0]), "cost": asdict(small[1])}
    write_json(record, {**known, form: entry})
