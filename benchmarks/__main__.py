"""Measurements of the pipeline, of scale and of density: `python -m benchmarks`. Nothing imports them."""

from benchmarks import density, pipeline, scale

pipeline.main()
scale.main([])
density.main([])
