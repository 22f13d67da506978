"""A reader of text in pictures: RapidOCR (Apache-2.0), whose models lie in its wheel."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np

from sensorium.core.errors import MissingDependencyError
from sensorium.experts.base import ExpertConfig, Look
from sensorium.media.image import Image


class OcrConfig(ExpertConfig):
    """Lines of text, from top to bottom as the reader finds them."""

    kind: Literal["ocr"] = "ocr"
    label: str = "Text in it"
    least_score: float = 0.5
    """Lines that the reader is less sure of are left out."""

    def build(self) -> Look:
        try:
            reader: Any = importlib.import_module("rapidocr_onnxruntime").RapidOCR()
        except ModuleNotFoundError:
            raise MissingDependencyError(
                "reading text in pictures needs a package that is not installed",
                where="expert ocr",
                fix="pip install 'sensorium[ocr]'",
            ) from None

        def look(image: Image) -> str:
            # It takes channels in OpenCV's order.
            found, _ = reader(np.asarray(image.to_pil())[:, :, ::-1])
            return " / ".join(text for _, text, score in found or () if float(score) >= self.least_score)

        return look
