//! A campaign of faults: what goes wrong is drawn by chance, from a seed, while containers write ledgers on volumes and move
//! from host to host. After every round of it all that was acknowledged has to be there, once, in order and by nobody who
//! was fenced; no volume may be mounted for writing on two hosts; and in the end nothing may be left.
//!
//! | module | owns |
//! |---|---|
//! | [`plan`] | which faults come when, and which volume moves where: a pure function of the seed |
//! | [`fleet`] | the volumes, their writers, and what is looked at after each round |
//! | [`campaign`] | the rounds, the lines, the file from which it goes on |

pub mod campaign;
pub mod fleet;
pub mod plan;
