//! Real format commands, on scratch files.

use std::fs;

use super::*;

fn scratch() -> (tempfile::TempDir, Scratch) {
    let root = tempfile::tempdir().unwrap();
    let scratch = Scratch::open(root.path()).unwrap();
    (root, scratch)
}

async fn format(scratch: &Scratch, command: &str, mib: u64) -> Result<Formatted, ImageError> {
    let size = Size::from_bytes(mib << 20).unwrap();
    Formatter::new().format(scratch, &command.parse().unwrap(), size).await
}

fn left(scratch: &Scratch) -> usize {
    fs::read_dir(scratch.path()).unwrap().count()
}

async fn failure(command: &str) -> String {
    let (_root, scratch) = scratch();
    let error = format(&scratch, command, 16).await.unwrap_err();
    assert!(matches!(error, ImageError::Format { .. }), "{error:?}");
    assert_eq!(left(&scratch), 0, "a failed command leaves no scratch file");
    error.to_string().replace(&scratch.path().display().to_string(), "SCRATCH")
}

#[tokio::test]
async fn a_file_system_comes_in_few_pieces() {
    let (_root, scratch) = scratch();
    let formatted = format(&scratch, "mkfs.ext4 -m0 %", 1024).await.unwrap();
    let pieces: Vec<_> = formatted.pieces().unwrap().map(Result::unwrap).collect();
    let bytes: usize = pieces.iter().map(|(_, data)| data.len()).sum();
    assert!(pieces.len() < 40 && bytes < 2 << 20, "{} pieces, {bytes} bytes", pieces.len());
    drop(formatted);
    assert_eq!(left(&scratch), 0);
}

/// Its journal of 1 GiB is only set aside.
#[tokio::test]
async fn a_tebibyte_of_ext4_is_little_to_write() {
    let (_root, scratch) = scratch();
    let formatted = format(&scratch, "mkfs.ext4 -m0 %", 1 << 20).await.unwrap();
    let at_most = formatted.bytes().unwrap();
    let bytes: usize =
        formatted.pieces().unwrap().map(Result::unwrap).map(|(_, data)| data.len()).sum();
    assert!(bytes as u64 <= at_most && at_most < 64 << 20, "{bytes} of at most {at_most}");
}

#[tokio::test]
async fn a_failing_command_is_shown_with_its_words() {
    let error = failure("echo no such feature >&2; exit 7; : %").await;
    assert!(error.contains("failed with exit status 7: no such feature"), "{error}");
    let error = failure("kill -9 $$; : %").await;
    assert!(error.contains("failed with signal 9 (SIGKILL)"), "{error}");
    let error = failure("mkfs.nonesuch %").await;
    assert!(error.contains("failed with exit status 127"), "{error}");
}

#[tokio::test]
async fn success_has_to_show() {
    let error = failure("test -e %").await;
    assert!(error.ends_with("failed with exit status 0: it left the device blank"), "{error}");
    let error = failure("echo x >%").await;
    assert!(error.ends_with("it changed the size of the device"), "{error}");
}

#[tokio::test]
async fn a_command_that_needs_a_device_gets_one() {
    let (_root, scratch) = scratch();
    let command = "test -b % && mkfs.ext4 -q % && echo >&2";
    let formatted = format(&scratch, command, 16).await.unwrap();
    assert!(formatted.pieces().unwrap().next().is_some());
    // The second run, on the device, is the one that is reported.
    let error = failure("test -b % && echo on a device >&2; exit 3").await;
    assert!(error.contains("/dev/loop") && error.ends_with("3: on a device"), "{error}");
}

#[tokio::test]
async fn the_second_run_begins_blank() {
    let (_root, scratch) = scratch();
    let command = "test -b % || { printf first | dd of=% conv=notrunc seek=9; exit 1; }; \
                   printf second | dd of=% conv=notrunc";
    let formatted = format(&scratch, command, 16).await.unwrap();
    let pieces: Vec<_> = formatted.pieces().unwrap().map(Result::unwrap).collect();
    assert_eq!((pieces.len(), &pieces[0].1[..7]), (1, &b"second\0"[..]));
}

#[tokio::test]
async fn dropping_removes_the_file() {
    let (_root, scratch) = scratch();
    let task = tokio::spawn({
        let scratch = scratch.clone();
        async move { format(&scratch, "touch %.started; sleep 1000", 16).await.map(drop) }
    });
    while left(&scratch) < 2 {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let names: Vec<_> =
        fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.iter().all(|path| path.extension().is_some()), "{names:?}");
}
