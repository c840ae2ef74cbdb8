# A release archive of ONNX Runtime, unpacked: include/ and lib/.
set(ONNXRUNTIME_ROOT "" CACHE PATH "folder that holds include/onnxruntime_c_api.h and lib/libonnxruntime.so")
find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h HINTS ${ONNXRUNTIME_ROOT}/include PATH_SUFFIXES onnxruntime REQUIRED)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT}/lib REQUIRED)
set(RUNTIME_LIBRARY ${ONNXRUNTIME_LIBRARY})
set(RUNTIME_INCLUDE ${ONNXRUNTIME_INCLUDE})
set(MODEL model.onnx)
