set(PROGRAM draw)
set(SOURCES boxes.cpp draw.cpp)
