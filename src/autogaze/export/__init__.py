"""Gaze models for other runtimes: ONNX and ``torch.export`` programs, with the decoding loop left to the host."""

from __future__ import annotations

from autogaze.export.folder import Exported, ExportError, export_gaze_model

__all__ = ["ExportError", "Exported", "export_gaze_model"]
