# What every target of the project shares: warnings as errors, hardening, sanitizers, and one way
# to declare a library (a folder) with its own link list, so that the build says who may know whom.

find_package(Threads REQUIRED)

add_library(ostler_flags INTERFACE)
target_compile_options(ostler_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor
  -Wold-style-cast -Woverloaded-virtual -Wswitch-enum -Werror)
target_compile_definitions(ostler_flags INTERFACE _GLIBCXX_ASSERTIONS
  OSTLER_VERSION="${PROJECT_VERSION}" BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION
  BOOST_BEAST_SEPARATE_COMPILATION)
target_include_directories(ostler_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/manager)
# GCC 12 takes "text" + std::string for an overlapping copy (its bug 105651).
# The first option is for clang-tidy, which reads the flags meant for GCC.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(ostler_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unknown-warning-option$<SEMICOLON>-Wno-restrict>)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(ostler_flags INTERFACE -fstack-protector-strong
    $<$<NOT:$<BOOL:${OSTLER_SANITIZE}>>:-U_FORTIFY_SOURCE> -D_FORTIFY_SOURCE=2)
  target_link_options(ostler_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed -Wl,--gc-sections)
  target_compile_options(ostler_flags INTERFACE -ffunction-sections -fdata-sections)
endif()
if(OSTLER_SANITIZE)
  target_compile_options(ostler_flags INTERFACE -fsanitize=${OSTLER_SANITIZE}
    -fno-omit-frame-pointer -fno-sanitize-recover=all)
  # Clang 14 cannot assemble coroutines with the check of function types ("Cannot represent a
  # difference across sections").
  target_compile_options(ostler_flags INTERFACE
    $<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>)
  # With sanitizers GCC takes its own instrumentation for reads of what was never written (its
  # manual says so); the release build has the warning.
  target_compile_options(ostler_flags INTERFACE
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  # The thread sanitizer does not know fences. Asio's only repeat what its locks do.
  if(OSTLER_SANITIZE MATCHES thread)
    target_compile_definitions(ostler_flags INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
  target_link_options(ostler_flags INTERFACE -fsanitize=${OSTLER_SANITIZE})
endif()

# With OSTLER_BUNDLED what is installed runs wherever there is a glibc of that age or younger. Nothing
# of the libraries inside is seen from outside, or a program could take half of the C++ library from
# libostler-worker.so and half from its own.
if(OSTLER_BUNDLED)
  target_link_options(ostler_flags INTERFACE -static-libstdc++ -static-libgcc
    -Wl,--exclude-libs,ALL)
endif()

# Most of a sanitized build's time would go into optimising instrumented coroutines, so only what
# plays millions of events is optimised there.
function(ostler_optimise_if_sanitized)
  if(OSTLER_SANITIZE AND NOT CMAKE_CXX_FLAGS MATCHES "-O")
    foreach(target ${ARGN})
      target_compile_options(${target} PRIVATE -O1)
    endforeach()
  endif()
endfunction()

# Boost 1.81 is the one Debian 12 has beside its default 1.74; Process and Asio moved on since.
find_package(Boost 1.81 REQUIRED)

set(ostler_asio_definitions BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION
  BOOST_ASIO_NO_DEPRECATED)

# Asio and Beast are compiled once, here, and not again in every file that uses them.
function(ostler_asio_library)
  add_library(ostler_asio STATIC ${CMAKE_SOURCE_DIR}/cmake/asio.cpp)
  target_include_directories(ostler_asio SYSTEM PUBLIC ${Boost_INCLUDE_DIRS})
  target_link_libraries(ostler_asio PRIVATE ostler_flags PUBLIC Threads::Threads)
  target_compile_definitions(ostler_asio PUBLIC ${ostler_asio_definitions})
  target_compile_options(ostler_asio PRIVATE -w)
endfunction()
ostler_asio_library()

# ostler_library(NAME SOURCES… LINK targets…): one folder, one static library.
function(ostler_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK;LINK_PRIVATE" ${ARGN})
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE $<BUILD_INTERFACE:ostler_flags> ${arg_LINK_PRIVATE}
    PUBLIC ${arg_LINK})
endfunction()

# ostler_program(NAME SOURCES… LINK targets…): one executable in bin/.
function(ostler_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ostler_flags ${arg_LINK})
endfunction()
