"""Reduced precision, one file per toolchain: each takes what its exporter made in float32."""
