# A folder of ONNX Runtime with lib/, and with include/ where its header is at hand (else onnxruntime_c.h declares what is used).
set(ONNXRUNTIME_ROOT "" CACHE PATH "folder that holds lib/libonnxruntime.so and, at will, include/onnxruntime_c_api.h")
find_path(ONNXRUNTIME_INCLUDE onnxruntime_c_api.h HINTS ${ONNXRUNTIME_ROOT}/include PATH_SUFFIXES onnxruntime)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT}/lib REQUIRED)
set(RUNTIME_LIBRARY ${ONNXRUNTIME_LIBRARY})
if(ONNXRUNTIME_INCLUDE)
  set(RUNTIME_INCLUDE ${ONNXRUNTIME_INCLUDE})
endif()
set(MODEL model.onnx)
