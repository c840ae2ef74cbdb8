"""A phone's browser as a device: two WebAssembly runtimes behind one page. Relative numbers, never a phone app's."""
