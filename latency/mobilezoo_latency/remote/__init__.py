"""Real arm64 devices at the other end of a cable or a network: Android over adb, any arm64 Linux over ssh.

Both run the same program as the emulated phone (`emulator/native/litert_run.c`), with its C library beside it, so that
nothing has to be installed on the device.
"""
