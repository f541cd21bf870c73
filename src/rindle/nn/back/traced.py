"""Whether a module is being recorded: by torch.jit.trace, torch.export, torch.fx or the exporters to ONNX. What it computes outside
of torch would become a constant of the recording.
"""

from __future__ import annotations

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ...errors import RindleError


def refuse_onnx(path: str, remedy: str) -> None:
    """RindleError while torch.onnx exports: ONNX has no operator for it."""
    if (torch.jit.is_tracing() or torch.compiler.is_exporting()) and torch.onnx.is_in_onnx_export():
        raise RindleError(
            f"{path or 'the module'} cannot be exported to ONNX: it holds integers of Rindle's core; {remedy}"
        )


def refuse_recording(path: str, remedy: str) -> None:
    """RindleError while anything records; torch.compile alone leaves such a module out of its graph."""
    refuse_onnx(path, remedy)
    recording = torch.jit.is_tracing() or torch.compiler.is_exporting()
    if recording or (not torch.compiler.is_dynamo_compiling() and get_proxy_mode() is not None):
        raise RindleError(
            f"{path or 'the module'} cannot be traced or exported: it runs in Rindle's core, outside of torch; {remedy}"
        )
