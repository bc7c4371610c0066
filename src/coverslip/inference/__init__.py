"""Engines that compute a bundle's scores: torch, ONNX Runtime, OpenVINO. Which of them is used is settled in `choice`."""

from coverslip.inference.choice import Runtimes as Runtimes
from coverslip.inference.runtime import RUNTIMES as RUNTIMES
from coverslip.inference.runtime import Runtime as Runtime
from coverslip.inference.runtime import RuntimeName as RuntimeName
