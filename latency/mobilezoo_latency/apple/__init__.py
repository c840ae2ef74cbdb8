"""Core ML on a Mac, and on an iPhone or iPad connected to it, through coremltools' own benchmarker. macOS only."""
