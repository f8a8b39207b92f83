//! Everything on one machine: the embedded store and image files, one volmaster, one Docker host.

use std::sync::LazyLock;

use systemtests::stories::crashes::{self, Victim};
use systemtests::stories::{
    cli, containers, filesystems, input, life, many, outages, schedules, snapshots,
};
use testkit::Suite;
use testkit::suite::Size;

/// For stories that others may run beside.
static CALM: LazyLock<Suite> = LazyLock::new(|| Suite::one_machine("calm", Size::of(1, 1)));
/// For stories in which something is killed.
static ROUGH: LazyLock<Suite> = LazyLock::new(|| Suite::one_machine("rough", Size::of(1, 1)));

#[test]
fn a_volume_lives_its_life() {
    life::a_volume_lives_its_life(&CALM);
}

#[test]
fn inspect_says_how_it_stands() {
    life::inspect_says_how_it_stands(&CALM);
}

#[test]
fn every_option_is_taken() {
    life::every_option_is_taken(&CALM);
}

#[test]
fn data_comes_back() {
    snapshots::data_comes_back(&CALM);
}

#[test]
fn what_is_written_to_is_frozen() {
    snapshots::what_is_written_to_is_frozen(&CALM);
}

#[test]
fn a_volume_grows() {
    snapshots::a_volume_grows(&CALM);
}

#[test]
fn a_schedule_changes() {
    schedules::a_schedule_changes(&CALM);
}

#[test]
fn a_volume_that_is_not_ephemeral_outlives_docker_rm() {
    life::a_volume_that_is_not_ephemeral_outlives_docker_rm(&CALM);
}

#[test]
fn creating_again_finds_the_volume() {
    life::creating_again_finds_the_volume(&CALM);
}

#[test]
fn two_tenants_do_not_meet() {
    life::two_tenants_do_not_meet(&CALM);
}

#[test]
fn a_plain_name_needs_a_default_tenant() {
    life::a_plain_name_needs_a_default_tenant(&ROUGH);
}

#[test]
fn two_containers_share_and_either_may_stop_first() {
    containers::two_containers_share_and_either_may_stop_first(&CALM);
}

#[test]
fn sharing_container_refuses_the_second() {
    containers::sharing_container_refuses_the_second(&CALM);
}

#[test]
fn docker_cp_reaches_the_volume() {
    containers::docker_cp_reaches_the_volume(&CALM);
}

#[test]
fn content_of_the_image_is_copied_up() {
    containers::content_of_the_image_is_copied_up(&CALM);
}

#[test]
fn a_killed_container_leaves_nothing() {
    containers::a_killed_container_leaves_nothing(&CALM);
}

#[test]
fn a_container_that_fails_to_start_leaves_nothing() {
    containers::a_container_that_fails_to_start_leaves_nothing(&CALM);
}

#[test]
fn docker_restart_keeps_the_data() {
    containers::docker_restart_keeps_the_data(&CALM);
}

#[test]
fn every_file_system_works() {
    filesystems::every_file_system_works(&CALM);
}

#[test]
fn a_format_command_that_fails_leaves_nothing() {
    filesystems::a_format_command_that_fails_leaves_nothing(&CALM);
}

#[test]
fn fifty_volumes_come_and_go_at_once() {
    many::fifty_volumes_come_and_go_at_once(&CALM);
}

#[test]
fn the_plugin_socket_takes_no_nonsense() {
    input::the_plugin_socket_takes_no_nonsense(&CALM);
}

#[test]
fn a_slow_client_is_cut_off() {
    input::a_slow_client_is_cut_off(&CALM);
}

#[test]
fn volmaster_takes_no_nonsense() {
    input::volmaster_takes_no_nonsense(&CALM);
}

#[test]
fn docker_is_restarted() {
    crashes::docker_is_restarted(&ROUGH);
}

#[test]
fn dockerd_dies() {
    crashes::dockerd_dies(&ROUGH);
}

#[test]
fn volplugin_dies() {
    crashes::volplugin_dies(&ROUGH);
}

#[test]
fn a_container_ends_while_volplugin_is_away() {
    crashes::a_container_ends_while_volplugin_is_away(&ROUGH);
}

#[test]
fn docker_then_volplugin_die() {
    crashes::both_die(&ROUGH, Victim::Docker, Victim::Plugin);
}

#[test]
fn volplugin_then_docker_die() {
    crashes::both_die(&ROUGH, Victim::Plugin, Victim::Docker);
}

#[test]
fn volmaster_is_down_for_a_while() {
    outages::volmaster_is_down_for_a_while(&ROUGH);
}

#[test]
fn volcli_ends_as_it_says() {
    cli::volcli_ends_as_it_says(&CALM);
}
