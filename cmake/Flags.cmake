# Flags live in interface targets and nowhere else: a generated or third-party source takes gpuslice_std alone.

add_library(gpuslice_std INTERFACE)
target_compile_features(gpuslice_std INTERFACE cxx_std_23)
target_include_directories(gpuslice_std INTERFACE ${CMAKE_SOURCE_DIR}/src)
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_C_FLAGS_RELEASE "-O2")
set(CMAKE_CXX_FLAGS_SANITIZE "-O1 -g1 -fno-omit-frame-pointer")
set(CMAKE_C_FLAGS_SANITIZE "-O1 -g1 -fno-omit-frame-pointer")

if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(gpuslice_std INTERFACE -fstack-protector-strong -fcf-protection -ffunction-sections -fdata-sections)
  target_compile_definitions(gpuslice_std INTERFACE _FORTIFY_SOURCE=3 _GLIBCXX_ASSERTIONS)
  target_link_options(gpuslice_std INTERFACE -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,-s)
endif()
if(GPUSLICE_SANITIZE)
  target_compile_options(gpuslice_std INTERFACE -fsanitize=${GPUSLICE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(gpuslice_std INTERFACE -fsanitize=${GPUSLICE_SANITIZE})
  target_compile_definitions(gpuslice_std INTERFACE _GLIBCXX_ASSERTIONS GPUSLICE_SANITIZED=1)
endif()

add_library(gpuslice_flags INTERFACE)
target_link_libraries(gpuslice_flags INTERFACE gpuslice_std)
target_compile_options(gpuslice_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor -Wold-style-cast
  -Wnull-dereference -Wsuggest-override -Wextra-semi -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 warns inside its own <expected>, <vector> and <string> at -O2 (bugs 105562, 105593, 105329, 105651): not ours to fix.
  target_compile_options(gpuslice_flags INTERFACE -Wno-maybe-uninitialized -Wno-null-dereference -Wno-stringop-overflow -Wno-restrict
                         -Wno-array-bounds -Wno-stringop-overread)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(gpuslice_flags INTERFACE -Wno-gnu-zero-variadic-macro-arguments)
endif()
