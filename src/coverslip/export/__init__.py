"""A bundle for other programs: ONNX, OpenVINO and bioimage.io, each proven against torch before it stands at its place."""

from coverslip.export.exporting import FORMATS as FORMATS
from coverslip.export.exporting import Exported as Exported
from coverslip.export.exporting import Format as Format
from coverslip.export.exporting import export_bundle as export_bundle
