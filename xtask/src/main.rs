//! The project's only scripts. `cargo xtask help` lists them.
fn main() {
}
