// Where the control socket is when nobody says: the one rule that ostlerd and ostlerctl share.
//
// Looks at the environment and the effective user alone; touches no file.
#pragma once

#include <string>

namespace ostler::control {

// `control.sock` in the runtime directory: $RUNTIME_DIRECTORY, else /run/ostler for root, else
// $XDG_RUNTIME_DIR/ostler, else a directory private to the user under $TMPDIR or /tmp. As these
// variables must hold absolute paths, any other value counts as unset.
std::string default_control_socket();
std::string runtime_directory();

}  // namespace ostler::control
