// Ten lines, built against the installed SDK.
#include <ostler/http.hpp>

int main(int argc, char** argv) {
  return ostler::http::serve(argc, argv, [](const ostler::http::request& request) {
    return ostler::http::response{.body = "good day, " + std::string(request.target()) + "\n"};
  });
}
