# Sources

# Tests
