//! One message of the agent contract: what is taken for valid is the same again after another trip over the wire.

use creel_proto::Envelope;
use creel_proto::agent::Message;
use prost::Message as _;

pub fn run(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    let Ok(envelope) = Envelope::try_from(message) else { return };
    let again = Message::from(envelope.clone()).encode_to_vec();
    let again = Message::decode(&again[..]).expect("what was encoded decodes");
    assert_eq!(Envelope::try_from(again).expect("it was valid"), envelope);
}
