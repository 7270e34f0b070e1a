#include "config/src/host.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "config/src/text.hpp"
#include "stable.hpp"

namespace ostler::config {

TEST_CASE("the manager that runs") {
  const Host host = Host::current();
  CHECK(host.uid == geteuid());
  CHECK(host.gid == getegid());
  CHECK(host.in_group(getegid()));
  CHECK(host.folder.starts_with('/'));
  CHECK(host.may_bind(0));
  CHECK(host.may_bind(65535));
}

TEST_CASE("what it may do follows from its capabilities") {
  Host host = ordinary(Host::current());
  CHECK(!host.may_set_user());
  CHECK(!host.may_set_group());
  CHECK(!host.may_give_files_away());
  CHECK(!host.may_bind(1023));
  CHECK(host.may_bind(1024));
  CHECK(!host.in_group(0));
  host.first_free_port = 80;
  CHECK(host.may_bind(80));
  CHECK(!host.may_bind(79));
  host.capabilities = 1U << 10U;  // CAP_NET_BIND_SERVICE
  CHECK(host.may_bind(79));
  CHECK(!host.may_set_user());
  host = privileged(host);
  CHECK(host.may_set_user());
  CHECK(host.may_bind(1));
}

TEST_CASE("users and groups") {
  CHECK(find_user("root")->uid == 0);
  CHECK(find_user("0")->known);
  CHECK(find_user("3999999999")->uid == 3999999999U);
  CHECK(!find_user("3999999999")->known);
  CHECK(!find_user("no-such-user"));
  CHECK(!find_user("4294967295"));  // "leave it as it is", to the kernel
  CHECK(!find_user("99999999999999"));
  CHECK(find_group("root") == gid_t{0});
  CHECK(find_group("12345") == gid_t{12345});
  CHECK(!find_group("no-such-group"));
  CHECK(user_text(0) == "root");
  CHECK(user_text(3999999999U) == "3999999999");
}

TEST_CASE("a worker is in its user's groups and in its own") {
  CHECK(account_of("root", {}).uid == 0);
  CHECK(account_of("0", {}).groups.front() == gid_t{0});
  const Account account = account_of("3999999999", "12345");
  CHECK(account.uid == 3999999999U);
  CHECK(account.groups == std::vector<gid_t>{12345});
}

TEST_CASE("executables") {
  const Stable stable;
  const std::string bin = stable.scratch / "bin";
  const auto found = [&](const std::string& command, const std::string& path) {
    return find_executable(command, path, stable.scratch.path());
  };
  CHECK(found("app", bin).path == bin + "/app");
  CHECK(found("app", "/nowhere:relative::" + bin).path == bin + "/app");
  CHECK(found("./bin/app", "").path == stable.scratch.path() + "/./bin/app");
  CHECK(found(bin + "/app", "").path == bin + "/app");
  CHECK(found("nothing", bin).problem == "'nothing' is in no folder of PATH (" + shown(bin) + ")");
  CHECK(found("data", bin).problem == "'" + bin + "/data' is not executable (chmod +x)");
  CHECK(found("folder", bin).problem.find("is a folder") != std::string::npos);
  CHECK(found("bin/none", bin).problem.find("does not exist") != std::string::npos);
  CHECK(found("/dev/null", bin).problem.find("not a file that can be executed") !=
        std::string::npos);
  CHECK(found("bin/app/x", bin).problem.find("Not a directory") != std::string::npos);
  // One that cannot be executed does not hide one further on that can.
  stable.scratch.write("first/app", "", 0644);
  CHECK(found("app", stable.scratch / "first" + ":" + bin).path == bin + "/app");
}

namespace {

// The working directory and $PWD, as they were before, when it goes.
class Standing {
 public:
  Standing(const std::string& folder, const std::string& pwd)
      : folder_(std::filesystem::current_path()) {
    if (const char* const before = getenv("PWD")) pwd_ = before;
    std::filesystem::current_path(folder);
    setenv("PWD", pwd.c_str(), 1);
  }
  ~Standing() {
    std::filesystem::current_path(folder_);
    setenv("PWD", pwd_.c_str(), 1);
  }
  Standing(const Standing&) = delete;
  Standing& operator=(const Standing&) = delete;

 private:
  std::filesystem::path folder_;
  std::string pwd_;
};

}  // namespace

TEST_CASE("the working directory has the name in $PWD if that is the same folder") {
  const Scratch scratch;
  const std::string real = scratch.folder("releases/1");
  const std::string link = scratch / "current";
  std::filesystem::create_directory_symlink(real, link);
  const auto folder = [&](const std::string& pwd) {
    const Standing standing(real, pwd);
    return working_folder();
  };
  CHECK(folder(link) == link);
  CHECK(folder(link + "/") == link);
  CHECK(folder(real) == real);
  CHECK(folder(scratch.path()) == real);
  CHECK(folder(scratch / "none") == real);
  CHECK(folder("") == real);
  CHECK(folder(".") == real);
}

TEST_CASE("a user's entry has what a login would set") {
  const auto root = find_user_entry("root");
  REQUIRE(root);
  CHECK(root->name == "root");
  CHECK(root->home.starts_with('/'));
  CHECK(root->shell.starts_with('/'));
  CHECK(find_user_entry("0")->name == "root");
  CHECK(!find_user_entry("3999999999"));
  CHECK(!find_user_entry("no-such-user"));
}

}  // namespace ostler::config
