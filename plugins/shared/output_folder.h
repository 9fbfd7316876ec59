#pragma once

#include <string>

namespace millrace {

/// Makes the folder of the option "path" if it is not there. Throws ConfigError if no files can be
/// made in it.
void open_output_folder(const std::string& path);

}  // namespace millrace
