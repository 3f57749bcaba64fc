//! The messages of `docs/examples/grpc/chat.proto`; a test compares field numbers and types with it.

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(string, tag = "1")]
    pub author: String,
    #[prost(string, tag = "2")]
    pub text: String,
    #[prost(uint64, tag = "3")]
    pub number: u64,
    #[prost(string, tag = "4")]
    pub instance: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SayRequest {
    #[prost(string, tag = "1")]
    pub author: String,
    #[prost(string, tag = "2")]
    pub text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SayReply {
    #[prost(message, optional, tag = "1")]
    pub message: Option<Message>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct HistoryRequest {
    #[prost(uint32, tag = "1")]
    pub last: u32,
    #[prost(bool, tag = "2")]
    pub follow: bool,
    #[prost(uint32, tag = "3")]
    pub interval_millis: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Chunk {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UploadReply {
    #[prost(uint64, tag = "1")]
    pub chunks: u64,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    #[prost(fixed32, tag = "3")]
    pub crc32: u32,
    #[prost(string, tag = "4")]
    pub instance: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FailRequest {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(uint32, tag = "3")]
    pub messages: u32,
    #[prost(bool, tag = "4")]
    pub headers_first: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SleepRequest {
    #[prost(uint32, tag = "1")]
    pub millis: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SleepReply {
    #[prost(uint32, tag = "1")]
    pub deadline_millis: u32,
    #[prost(uint64, tag = "2")]
    pub cancelled: u64,
    #[prost(string, tag = "3")]
    pub instance: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// Fields by message: name, number, type (`message` for all messages).
    type Fields = BTreeMap<String, Vec<(String, String, String)>>;

    fn of_the_proto_file() -> Fields {
        let (mut fields, mut message) = (Fields::new(), None);
        for line in include_str!("../../../../docs/examples/grpc/chat.proto").lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("message ").and_then(|rest| rest.strip_suffix(" {")) {
                message = Some(name.to_owned());
            } else if let (Some(message), Some((declared, number))) = (&message, line.split_once(" = ")) {
                let (kind, name) = declared.split_once(' ').unwrap();
                let kind = if kind.starts_with(char::is_uppercase) { "message" } else { kind };
                let field = (name.to_owned(), number.trim_end_matches(';').to_owned(), kind.to_owned());
                fields.entry(message.clone()).or_default().push(field);
            }
        }
        fields
    }

    fn of_this_file() -> Fields {
        let (mut fields, mut message, mut declared) = (Fields::new(), String::new(), None);
        let source = include_str!("messages.rs").split("#[cfg(test)]").next().unwrap();
        for line in source.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
                name.clone_into(&mut message);
            } else if let Some(attribute) =
                line.strip_prefix("#[prost(").and_then(|rest| rest.strip_suffix("\")]"))
            {
                let (kind, number) = attribute.split_once(", tag = \"").unwrap();
                let kind = kind.split([',', ' ']).next().unwrap();
                declared = Some((number.to_owned(), kind.to_owned()));
            } else if let Some(((number, kind), field)) = declared.take().zip(line.strip_prefix("pub ")) {
                let name = field.split(':').next().unwrap().to_owned();
                fields.entry(message.clone()).or_default().push((name, number, kind));
            }
        }
        fields
    }

    #[test]
    fn the_messages_are_those_of_the_proto_file() {
        let fields = of_this_file();
        assert_eq!(fields.len(), 9);
        assert_eq!(fields, of_the_proto_file());
    }
}
