//! The Rust declarations of librados and librbd against the C headers (packages librados-dev and librbd-dev).

use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};
use std::process::Command;

use volstorage::ceph::abi::{
    Function, RbdImageInfo, RbdImageSpec, RbdImageWatcher, RbdLinkedImageSpec, RbdSnapInfo,
    RbdSnapSpec, RbdTrashImageInfo, functions,
};

/// `(C expression, its value in Rust)` for a structure: size, alignment, and the offset and size of every field.
macro_rules! layout_of {
    ($rust:ident, $c:literal, [$($field:ident),* $(,)?]) => {{
        // Does not compile when a field is not in the list.
        let _: fn($rust) = |$rust { $($field: _),* }| {};
        vec![
            (concat!("sizeof(", $c, ")").to_owned(), size_of::<$rust>()),
            (concat!("_Alignof(", $c, ")").to_owned(), align_of::<$rust>()),
            $(
                (concat!("offsetof(", $c, ", ", stringify!($field), ")").to_owned(), offset_of!($rust, $field)),
                (concat!("sizeof(((", $c, " *)0)->", stringify!($field), ")").to_owned(), field_size(|value: &$rust| size_of_val(&value.$field))),
            )*
        ]
    }};
}

/// The size of the field that `measure` looks at.
fn field_size<T>(measure: impl Fn(&T) -> usize) -> usize {
    // SAFETY: the structures hold integers, pointers and arrays of them, for all of which zero is a value.
    let zeroed: T = unsafe { std::mem::zeroed() };
    measure(&zeroed)
}

/// The C type that a Rust type in a declaration stands for.
fn c_type(rust: &str) -> &str {
    match rust {
        "" => "void",
        "bool" => "bool",
        "c_int" => "int",
        "u8" => "uint8_t",
        "u32" => "uint32_t",
        "u64" => "uint64_t",
        "i64" => "int64_t",
        "usize" => "size_t",
        "isize" => "ssize_t",
        "*const c_char" => "const char *",
        "*mut c_char" => "char *",
        "*const *const c_char" => "const char **",
        "*mut *mut c_char" => "char **",
        "*mut c_int" => "int *",
        "*mut u64" => "uint64_t *",
        "*mut usize" => "size_t *",
        "*mut c_void" => "void *",
        "*mut libc::time_t" => "time_t *",
        "*mut libc::timespec" => "struct timespec *",
        "*mut libc::timeval" => "struct timeval *",
        "RadosHandle" => "rados_t",
        "*mut RadosHandle" => "rados_t *",
        "IoctxHandle" => "rados_ioctx_t",
        "*mut IoctxHandle" => "rados_ioctx_t *",
        "WriteOpHandle" => "rados_write_op_t",
        "ImageHandle" => "rbd_image_t",
        "*mut ImageHandle" => "rbd_image_t *",
        "CompletionHandle" => "rbd_completion_t",
        "*mut CompletionHandle" => "rbd_completion_t *",
        "ProgressFn" => "librbd_progress_fn_t",
        "CompletionFn" => "rbd_callback_t",
        "DiffFn" => "diff_fn",
        "LockMode" => "rbd_lock_mode_t",
        "*mut LockMode" => "rbd_lock_mode_t *",
        "ImageOptionsHandle" => "rbd_image_options_t",
        "*mut ImageOptionsHandle" => "rbd_image_options_t *",
        "*mut SnapNamespace" => "rbd_snap_namespace_type_t *",
        "*mut RbdSnapInfo" => "rbd_snap_info_t *",
        "*mut RbdSnapSpec" => "rbd_snap_spec_t *",
        "*mut RbdLinkedImageSpec" => "rbd_linked_image_spec_t *",
        "*mut RbdImageSpec" => "rbd_image_spec_t *",
        "*mut RbdImageInfo" => "rbd_image_info_t *",
        "*mut RbdTrashImageInfo" => "rbd_trash_image_info_t *",
        "*mut RbdImageWatcher" => "rbd_image_watcher_t *",
        other => panic!("which C type is {other}?"),
    }
}

/// A line of C that compiles without a warning only if the function has this prototype.
fn prototype_check(function: &Function) -> String {
    let parameters: Vec<&str> = function.parameters.iter().map(|ty| c_type(ty)).collect();
    let Function { name, returns, .. } = function;
    format!("{} (*check_{name})({}) = {name};\n", c_type(returns), parameters.join(", "))
}

/// Compiles a C program, runs it, and returns what it prints.
#[expect(clippy::disallowed_methods, reason = "the test runs the C compiler and its product")]
fn run_c(source: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, program) = (dir.path().join("abi.c"), dir.path().join("abi"));
    std::fs::write(&file, source).expect("the source is written");
    // Nothing is called, so nothing needs to be linked.
    let flags = [
        "-std=c11",
        "-Wall",
        "-Werror",
        "-Wno-deprecated-declarations",
        "-Wl,--unresolved-symbols=ignore-all",
        "-o",
    ];
    let compiler = Command::new("cc")
        .args(flags)
        .args([&program, &file])
        .output()
        .expect("a C compiler is installed");
    let complaints = String::from_utf8_lossy(&compiler.stderr);
    assert!(
        compiler.status.success(),
        "the C headers are missing (librbd-dev, librados-dev) or differ:\n{complaints}"
    );
    let run = Command::new(&program).output().expect("the program runs");
    String::from_utf8(run.stdout).expect("text")
}

const INCLUDES: &str =
    "#include <stddef.h>\n#include <stdio.h>\n#include <time.h>\n#include <rbd/librbd.h>\n";

#[test]
fn layouts_are_those_of_the_headers() {
    let mut expressions = layout_of!(RbdImageSpec, "rbd_image_spec_t", [id, name]);
    expressions.extend(layout_of!(
        RbdImageInfo,
        "rbd_image_info_t",
        [size, obj_size, num_objs, order, block_name_prefix, parent_pool, parent_name]
    ));
    expressions.extend(layout_of!(
        RbdTrashImageInfo,
        "rbd_trash_image_info_t",
        [id, name, source, deletion_time, deferment_end_time]
    ));
    expressions.extend(layout_of!(RbdImageWatcher, "rbd_image_watcher_t", [addr, id, cookie]));
    expressions.extend(layout_of!(RbdSnapInfo, "rbd_snap_info_t", [id, size, name]));
    expressions.extend(layout_of!(RbdSnapSpec, "rbd_snap_spec_t", [id, namespace_type, name]));
    expressions.extend(layout_of!(
        RbdLinkedImageSpec,
        "rbd_linked_image_spec_t",
        [pool_id, pool_name, pool_namespace, image_id, image_name, trash]
    ));
    // The C enums that are passed as `int`, and the constants of them that are written down in Rust.
    for (expression, value) in [
        ("sizeof(rbd_lock_mode_t)", 4),
        ("sizeof(rbd_trash_image_source_t)", 4),
        ("(size_t)RBD_LOCK_MODE_EXCLUSIVE", 0),
        ("(size_t)RBD_TRASH_IMAGE_SOURCE_USER", 0),
        ("(size_t)RBD_TRASH_IMAGE_SOURCE_MIRRORING", 1),
        ("(size_t)RBD_TRASH_IMAGE_SOURCE_MIGRATION", 2),
        ("(size_t)RBD_TRASH_IMAGE_SOURCE_REMOVING", 3),
        ("(size_t)RBD_TRASH_IMAGE_SOURCE_USER_PARENT", 4),
        ("(size_t)RBD_FEATURES_DEFAULT", 0b11_1101),
        ("sizeof(rbd_snap_namespace_type_t)", 4),
        ("(size_t)RBD_SNAP_NAMESPACE_TYPE_USER", 0),
        ("(size_t)RBD_SNAP_NAMESPACE_TYPE_TRASH", 2),
        ("(size_t)RBD_SNAP_CREATE_SKIP_QUIESCE", 1),
        ("(size_t)RBD_IMAGE_OPTION_FEATURES", 1),
        ("(size_t)RBD_IMAGE_OPTION_CLONE_FORMAT", 12),
    ] {
        expressions.push((expression.to_owned(), value));
    }

    let mut source = format!("{INCLUDES}int main(void) {{\n");
    for (expression, _) in &expressions {
        writeln!(source, "  printf(\"%zu\\n\", {expression});").expect("a string takes all");
    }
    source.push_str("  return 0;\n}\n");
    let printed = run_c(&source);
    let in_c: Vec<usize> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(in_c.len(), expressions.len());
    for ((expression, in_rust), in_c) in expressions.iter().zip(in_c) {
        assert_eq!(*in_rust, in_c, "{expression}");
    }
}

#[test]
fn signatures_are_those_of_the_headers() {
    let functions = functions();
    assert!(functions.len() > 40, "{}", functions.len());
    let mut source = format!("{INCLUDES}typedef int (*diff_fn)(uint64_t, size_t, int, void *);\n");
    source.extend(functions.iter().map(prototype_check));
    source.push_str("int main(void) { return 0; }\n");
    run_c(&source);
}
