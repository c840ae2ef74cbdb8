set(PROGRAM classify)
set(SOURCES classes.cpp)
