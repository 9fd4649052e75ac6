"""Measurements of the pipeline, of scale, of density and of the design points: `python -m benchmarks`."""

from benchmarks import accelerator, density, pipeline, scale

pipeline.main()
scale.main([])
density.main([])
accelerator.main([])
