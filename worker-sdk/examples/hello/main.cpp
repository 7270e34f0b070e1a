#include <ostler/http.hpp>

int main(int argc, char** argv) {
  namespace http = ostler::http;
  return http::serve(argc, argv, [](const http::request& request) {
    if (request.target() != "/") return http::response{.status = http::status::not_found};
    return http::response{.body = "hello\n"};
  });
}
