set(PROGRAM draw)
set(SOURCES mask.cpp draw.cpp)
