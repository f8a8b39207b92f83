//! Snapshots on schedule: asks volmaster what is due, has it taken, and has removed what retention does not keep.
//!
//! It decides nothing that another instance could decide otherwise: what is due when is volmaster's word, by volmaster's
//! clock; which snapshots go is a function of `volcore`. It stores nothing, and reads no wall clock. So any number of
//! instances may run, and one may be killed at any time.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | flags, environment and file |
//! | [`master`] | the seam to volmaster |
//! | [`lanes`] | which volume's turn it is, as pure state: places, patience, back-off |
//! | [`crew`] | the tasks that have a place in the lanes |
//! | [`takes`] | asking what is due, and having it taken |
//! | [`retention`] | which snapshots of a volume go, as pure functions |
//! | [`removals`] | having them removed |
//! | [`supervisor`] | takes and removals together: for ever, or once |

pub mod config;
pub mod crew;
pub mod lanes;
pub mod master;
pub mod removals;
pub mod retention;
pub mod supervisor;
pub mod takes;
