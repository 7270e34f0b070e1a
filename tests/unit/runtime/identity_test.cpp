#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/identity.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>

using namespace ostler::runtime;

namespace {

bool root() {
  return geteuid() == 0;
}

}  // namespace

TEST_CASE("names that do not exist are named") {
  CHECK_THROWS_WITH_AS(resolve_identity("no-such-user", std::nullopt),
                       "there is no user 'no-such-user'", std::runtime_error);
  CHECK_THROWS_WITH_AS(resolve_identity(std::nullopt, "no-such-group"),
                       "there is no group 'no-such-group'", std::runtime_error);
  CHECK_THROWS_WITH_AS(resolve_identity("4000000001", std::nullopt),
                       "user '4000000001' is not in the user database, so its group must be given",
                       std::runtime_error);
}

TEST_CASE("without user and group nothing changes") {
  CHECK_FALSE(resolve_identity(std::nullopt, std::nullopt));
}

TEST_CASE("root becomes anybody" * doctest::skip(!root())) {
  const auto by_name = resolve_identity("nobody", std::nullopt);
  REQUIRE(by_name);
  const auto by_number = resolve_identity(std::to_string(by_name->uid), std::nullopt);
  REQUIRE(by_number);
  CHECK(by_number->gid == by_name->gid);
  CHECK(by_number->groups == by_name->groups);
  CHECK(std::count(by_name->groups.begin(), by_name->groups.end(), by_name->gid) == 1);
  const auto stranger = resolve_identity("4000000001", "4000000002");
  REQUIRE(stranger);
  CHECK(stranger->uid == 4000000001);
  CHECK(stranger->groups == std::vector<gid_t>{4000000002});
  const auto group = resolve_identity(std::nullopt, "4000000002");
  REQUIRE(group);
  CHECK(group->uid == 0);
  CHECK(group->groups == std::vector<gid_t>{4000000002});
}

TEST_CASE("an ordinary user stays who it is" * doctest::skip(root())) {
  CHECK_FALSE(resolve_identity(std::to_string(getuid()), std::to_string(getgid())));
  CHECK_FALSE(resolve_identity(std::nullopt, std::to_string(getgid())));
  CHECK_THROWS_WITH_AS(resolve_identity("root", std::nullopt),
                       "to switch to user 'root' the manager must be root", std::runtime_error);
  CHECK_THROWS_WITH_AS(resolve_identity(std::nullopt, "0"),
                       "to switch to group '0' the manager must be root", std::runtime_error);
}
