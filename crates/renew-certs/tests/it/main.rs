//! The tests of `renew-certs`, as one program: it is linked once. That certificates are got is tested in containers.

mod cli;
