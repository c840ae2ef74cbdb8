# The folder with libLiteRt.so, and that of LiteRT's headers where they are at hand (else litert_c.h declares what is used).
set(LITERT_LIBRARY_DIR "" CACHE PATH "folder with libLiteRt.so")
set(LITERT_INCLUDE_DIR "" CACHE PATH "folder that holds litert/c/litert_compiled_model.h")
find_library(LITERT_LIBRARY LiteRt HINTS ${LITERT_LIBRARY_DIR} REQUIRED)
set(RUNTIME_LIBRARY ${LITERT_LIBRARY})
set(RUNTIME_INCLUDE ${LITERT_INCLUDE_DIR})
set(MODEL model.tflite)
