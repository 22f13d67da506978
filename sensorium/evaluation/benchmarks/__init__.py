"""Benchmarks by name."""

from sensorium.core.tables import NameTable

BENCHMARKS = NameTable(
    "benchmark",
    {
        "naming": "sensorium.evaluation.benchmarks.naming:Naming",
        "category": "sensorium.evaluation.benchmarks.category:Category",
        "existence": "sensorium.evaluation.benchmarks.existence:Existence",
        "scene_existence": "sensorium.evaluation.benchmarks.scenes:SceneExistence",
        "attribute": "sensorium.evaluation.benchmarks.scenes:Attribute",
        "count": "sensorium.evaluation.benchmarks.scenes:Count",
        "relation": "sensorium.evaluation.benchmarks.scenes:Relation",
        "pointing": "sensorium.evaluation.benchmarks.pointing:PointingBenchmark",
        "finding": "sensorium.evaluation.benchmarks.finding:FindingBenchmark",
        "drawing": "sensorium.evaluation.benchmarks.drawing:DrawingBenchmark",
        "vqa_file": "sensorium.evaluation.benchmarks.vqa_file:VqaFile",
    },
)
