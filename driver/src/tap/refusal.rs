//! What to do when the kernel refuses a tap interface: the exact commands, by step and reason.

use std::io;

use super::TapConfig;
use crate::device::DeviceError;
use crate::sys::{TUN_PATH, errno};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Opening `/dev/net/tun`.
    Open,
    /// `TUNSETIFF`; whether an interface of that name was there already.
    Attach { existed: bool },
    /// Bringing it up, setting its MTU or address: what, in words.
    Configure(&'static str),
}

/// The error for a refused step, with the commands that mend it.
pub(super) fn refusal(step: Step, source: io::Error, config: &TapConfig) -> DeviceError {
    let name = &config.name;
    let code = source.raw_os_error();
    let what = match step {
        Step::Open => format!("opening {TUN_PATH}"),
        Step::Attach { existed: true } => format!("attaching to tap interface {name}"),
        Step::Attach { existed: false } => format!("creating tap interface {name}"),
        Step::Configure(what) => format!("{what} of {name}"),
    };
    let fix = match (step, code) {
        (Step::Open, Some(errno::ENOENT | errno::ENODEV | errno::ENXIO)) => {
            Some(format!("sudo modprobe tun  (in a container: start it with --device {TUN_PATH})"))
        }
        (Step::Open, Some(errno::EACCES | errno::EPERM)) => {
            Some(format!("sudo chmod 0666 {TUN_PATH}  (as udev makes it), or run as root"))
        }
        (Step::Attach { existed: false }, Some(errno::EPERM | errno::EACCES)) => {
            Some(create_commands(config))
        }
        (Step::Attach { existed: true }, Some(errno::EPERM | errno::EACCES)) => Some(format!(
            "it belongs to another user; make it yours:\n    {}",
            recreate_commands(config)
        )),
        (Step::Attach { .. }, Some(errno::EBUSY)) => Some(format!(
            "another process uses {name}; stop it (ip tuntap list shows which), or take another name"
        )),
        (Step::Attach { .. }, Some(errno::EINVAL)) => Some(format!(
            "{name} exists with other flags or is no tap interface; if nothing needs it:\n    {}",
            recreate_commands(config)
        )),
        (Step::Attach { .. }, Some(errno::E2BIG)) => {
            Some("the kernel allows no more queues; use fewer cores".into())
        }
        (Step::Configure(_), Some(errno::EPERM | errno::EACCES)) => {
            Some(configure_commands(config))
        }
        _ => None,
    };
    DeviceError::Os { what, source, fix }
}

/// The error for an interface that another process of this project holds.
pub(super) fn held_elsewhere(config: &TapConfig) -> DeviceError {
    let busy = io::Error::from_raw_os_error(errno::EBUSY);
    refusal(Step::Attach { existed: true }, busy, config)
}

/// The error for an interface that is there with another address than the one wanted.
pub(super) fn other_address(config: &TapConfig) -> DeviceError {
    DeviceError::Os {
        what: format!("checking the address of {}", config.name),
        source: io::Error::new(io::ErrorKind::AddrNotAvailable, "it has another address"),
        fix: Some(configure_commands(config)),
    }
}

/// Makes the interface for this user and configures it.
pub(super) fn create_commands(config: &TapConfig) -> String {
    let queues = if config.queues > 1 { " multi_queue" } else { "" };
    let header = if config.offloads { " vnet_hdr" } else { "" };
    format!(
        "sudo ip tuntap add dev {} mode tap user \"$USER\"{queues}{header} && {}",
        config.name,
        configure_commands(config)
    )
}

/// For an interface that cannot be attached to as it is. Only a tap is told to be deleted: a name
/// may have been that of a network card.
fn recreate_commands(config: &TapConfig) -> String {
    if is_no_tap(&config.name) {
        return format!("{} is no tap interface: give another name, such as tap:bw0", config.name);
    }
    format!("sudo ip link delete {} && {}", config.name, create_commands(config))
}

/// True for an interface that is certainly none: the kernel shows these flags for tun and tap only.
/// In a network namespace other than the one that sysfs was mounted in, it is not shown at all.
fn is_no_tap(name: &str) -> bool {
    let interface = std::path::Path::new("/sys/class/net").join(name);
    interface.exists() && !interface.join("tun_flags").exists()
}

fn configure_commands(config: &TapConfig) -> String {
    let name = &config.name;
    let address = config.kernel_address.map_or_else(String::new, |(address, prefix_len)| {
        format!("sudo ip addr add {address}/{prefix_len} dev {name} && ")
    });
    let mtu = config.mtu.map_or_else(String::new, |mtu| format!(" mtu {mtu}"));
    format!("{address}sudo ip link set {name}{mtu} up")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn config() -> TapConfig {
        TapConfig {
            queues: 2,
            kernel_address: Some((Ipv4Addr::new(10, 77, 0, 1), 24)),
            ..TapConfig::new("bw0")
        }
    }

    fn told(step: Step, code: i32) -> String {
        refusal(step, io::Error::from_raw_os_error(code), &config()).to_string()
    }

    #[test]
    fn every_refusal_names_its_own_remedy() {
        let create = "sudo ip tuntap add dev bw0 mode tap user \"$USER\" multi_queue vnet_hdr && \
                      sudo ip addr add 10.77.0.1/24 dev bw0 && sudo ip link set bw0 up";
        let new = Step::Attach { existed: false };
        let old = Step::Attach { existed: true };
        for (step, code, remedy) in [
            (Step::Open, errno::ENOENT, "sudo modprobe tun"),
            (Step::Open, errno::EACCES, "sudo chmod 0666 /dev/net/tun"),
            (new, errno::EPERM, create),
            (old, errno::EPERM, "belongs to another user"),
            (old, errno::EBUSY, "another process uses bw0"),
            (old, errno::EINVAL, "sudo ip link delete bw0 && sudo ip tuntap add"),
            (Step::Configure("setting the MTU"), errno::EPERM, "sudo ip link set bw0 up"),
        ] {
            let told = told(step, code);
            assert!(told.contains(remedy), "{step:?} {code}: {told}");
        }
        assert!(!told(Step::Open, errno::EMFILE).contains("to mend it"));
    }

    #[test]
    fn nobody_is_told_to_delete_an_interface_that_is_no_tap() {
        let config = TapConfig::new("lo");
        let error = io::Error::from_raw_os_error(errno::EINVAL);
        let told = refusal(Step::Attach { existed: true }, error, &config).to_string();
        assert!(told.contains("lo is no tap interface: give another name"), "{told}");
        assert!(!told.contains("delete"), "{told}");
    }

    #[test]
    fn commands_ask_for_no_more_than_the_configuration_does() {
        let plain = TapConfig {
            queues: 1,
            offloads: false,
            kernel_address: None,
            mtu: Some(9000),
            ..config()
        };
        assert_eq!(
            create_commands(&plain),
            "sudo ip tuntap add dev bw0 mode tap user \"$USER\" && sudo ip link set bw0 mtu 9000 up"
        );
    }
}
