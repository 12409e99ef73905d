"""The cases of `spec/vectors`, made with the plain-integer oracle and the standard library."""
