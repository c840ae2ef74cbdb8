"""One file per target: an exporter, and the runner of its files. Named in `mobilezoo_export.registry`."""
