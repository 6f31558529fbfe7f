module gopulse.test/services

// Also the version that `cargo xtask setup` installs.
go 1.27.3
