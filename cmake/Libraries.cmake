# Third-party libraries, all Debian 12's, linked statically into what is shipped. Headers are in the system's include
# path: their warnings are not ours. Each stands behind one target tp_*; a heavy one is linked by one or two folders only.

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
set(OPENSSL_USE_STATIC_LIBS ON)
find_package(OpenSSL REQUIRED)

# fmt: Debian ships no libfmt.a, so its source is compiled once into one object.
add_library(tp_fmt STATIC ${CMAKE_SOURCE_DIR}/cmake/fmt_source.cc)
target_link_libraries(tp_fmt PRIVATE gpuslice_std)

add_library(tp_json INTERFACE)   # nlohmann-json, headers only
add_library(tp_cli11 INTERFACE)  # CLI11, headers only
add_library(tp_beast INTERFACE)  # Boost.Beast and Asio 1.81, headers only
target_compile_definitions(tp_beast INTERFACE BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_DISABLE_BOOST_COROUTINE)
target_link_libraries(tp_beast INTERFACE Threads::Threads)

add_library(tp_openssl INTERFACE)
target_link_libraries(tp_openssl INTERFACE OpenSSL::SSL OpenSSL::Crypto Threads::Threads ${CMAKE_DL_LIBS})

find_library(YAML_CPP_STATIC NAMES libyaml-cpp.a REQUIRED)
add_library(tp_yaml INTERFACE)
target_link_libraries(tp_yaml INTERFACE ${YAML_CPP_STATIC})

# gRPC without TLS (the kubelet's sockets have none) with protobuf-lite, statically. Their .pc files name the closure.
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
pkg_check_modules(GRPCPP_UNSECURE REQUIRED grpc++_unsecure)
find_library(PROTOBUF_LITE_STATIC NAMES libprotobuf-lite.a REQUIRED)
set(grpc_closure "")
# upb, re2, address_sorting, cares and z are in libgrpc_unsecure.a's needs but in none of Debian's .pc files.
foreach(library ${GRPCPP_UNSECURE_STATIC_LIBRARIES} upb re2 address_sorting cares z)
  find_library(STATIC_${library} NAMES lib${library}.a)
  if(STATIC_${library})
    list(APPEND grpc_closure ${STATIC_${library}})
  elseif(NOT library MATCHES "^(dl|m|rt|pthread|protobuf|protobuf-lite)$")
    list(APPEND grpc_closure ${library})
  endif()
endforeach()
add_library(tp_grpc INTERFACE)
target_link_libraries(tp_grpc INTERFACE -Wl,--start-group ${grpc_closure} ${PROTOBUF_LITE_STATIC} -Wl,--end-group
                      Threads::Threads ${CMAKE_DL_LIBS} rt m)
