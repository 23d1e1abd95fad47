//! Device information that a desktop program can read without permission.

use crate::types::DeviceInfo;

/// Returns operating system and version, processor as the model, language and time zone, as far as the environment and
/// a few well-known files contain them. On phones the app fills in [`DeviceInfo`] itself, because its platform knows
/// better.
#[must_use]
#[uniffi::export]
pub fn desktop_device() -> DeviceInfo {
    DeviceInfo {
        os: os_name().to_owned(),
        os_version: os_version().unwrap_or_default(),
        model: std::env::consts::ARCH.to_owned(),
        language: language(|name| std::env::var(name).ok()).unwrap_or_default(),
        timezone: timezone().unwrap_or_default(),
        ..DeviceInfo::default()
    }
}

fn os_name() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "macOS",
        "windows" => "Windows",
        "ios" => "iOS",
        "android" => "Android",
        other => other,
    }
}

fn os_version() -> Option<String> {
    if cfg!(target_os = "linux") {
        return field(&std::fs::read_to_string("/etc/os-release").ok()?, "PRETTY_NAME=");
    }
    let plist = std::fs::read_to_string("/System/Library/CoreServices/SystemVersion.plist").ok()?;
    let (_, after) = plist.split_once("<key>ProductVersion</key>")?;
    let (_, value) = after.split_once("<string>")?;
    Some(value.split_once("</string>")?.0.to_owned())
}

/// Returns the value of a line `NAME="value"`.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_matches('"').to_owned())
}

/// Returns a BCP 47 tag from the POSIX variables, in their order of precedence: `zh_CN.UTF-8` is `zh-CN`.
fn language(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let value = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty())?;
    let tag = value.split(['.', '@']).next()?.replace('_', "-");
    (tag != "C" && tag != "POSIX").then_some(tag)
}

/// Returns an IANA name from `TZ` or from the target of the system's link.
fn timezone() -> Option<String> {
    if let Ok(zone) = std::env::var("TZ")
        && zone.contains('/')
    {
        return Some(zone.trim_start_matches(':').to_owned());
    }
    let target = std::fs::read_link("/etc/localtime").ok()?;
    let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_read_like_posix_says() {
        let env = |pairs: &'static [(&str, &str)]| {
            language(move |name| pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(env(&[("LANG", "zh_CN.UTF-8")]).as_deref(), Some("zh-CN"));
        assert_eq!(env(&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "de_DE@euro")]).as_deref(), Some("de-DE"));
        assert_eq!(env(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]), None);
        assert_eq!(env(&[]), None);
    }

    #[test]
    fn a_quoted_field_is_found() {
        assert_eq!(field("A=1\nPRETTY_NAME=\"Debian 13\"\n", "PRETTY_NAME=").as_deref(), Some("Debian 13"));
    }

    #[test]
    fn this_device_has_a_system_and_a_processor() {
        let device = desktop_device();
        assert!(!device.os.is_empty() && !device.model.is_empty());
    }
}
