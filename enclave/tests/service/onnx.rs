//! Writes tiny ONNX models, so that these tests need no files of anybody's.

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }
}

/// NodeProto
fn node(op: &str, inputs: &[&str], output: &str) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, input| {
        node.bytes(1, input.as_bytes())
    });
    node.bytes(2, output.as_bytes()).bytes(4, op.as_bytes())
}

/// ValueInfoProto of a FP32 tensor; `None` is an open dimension.
fn value(name: &str, shape: &[Option<u64>]) -> Message {
    let shape = shape.iter().fold(Message::default(), |shape, dim| {
        let dim = match dim {
            Some(size) => Message::default().number(1, *size),
            None => Message::default().bytes(2, b"n"),
        };
        shape.message(1, dim)
    });
    let tensor = Message::default().number(1, 1).message(2, shape);
    Message::default()
        .bytes(1, name.as_bytes())
        .message(2, Message::default().message(1, tensor))
}

fn model(graph: Message) -> Vec<u8> {
    // IR version 8, default operator set 17.
    let opset = Message::default().bytes(1, b"").number(2, 17);
    Message::default()
        .number(1, 8)
        .message(7, graph.bytes(2, b"graph"))
        .message(8, opset)
        .0
}

/// `Y = 1 / X`, X of shape [n, 4]: a zero gives infinity, which JSON cannot carry.
pub fn reciprocal() -> Vec<u8> {
    model(
        Message::default()
            .message(1, node("Reciprocal", &["X"], "Y"))
            .message(11, value("X", &[None, Some(4)]))
            .message(12, value("Y", &[None, Some(4)])),
    )
}

/// `Y = −X`, same shape: another model.
pub fn negation() -> Vec<u8> {
    model(
        Message::default()
            .message(1, node("Neg", &["X"], "Y"))
            .message(11, value("X", &[None, Some(4)]))
            .message(12, value("Y", &[None, Some(4)])),
    )
}

/// `Y = X·X·…·X`, X a square matrix: takes as long as the matrix is big.
pub fn power(times: usize) -> Vec<u8> {
    let mut graph = Message::default();
    let mut last = "X".to_owned();
    for step in 0..times {
        let output = if step + 1 == times {
            "Y".to_owned()
        } else {
            format!("T{step}")
        };
        graph = graph.message(1, node("MatMul", &[&last, "X"], &output));
        last = output;
    }
    model(
        graph
            .message(11, value("X", &[None, None]))
            .message(12, value("Y", &[None, None])),
    )
}

/// Reshapes X of shape [n] to [3]: any other n fails while it runs.
pub fn three() -> Vec<u8> {
    // TensorProto: dims [1], INT64, int64_data [3].
    let shape = Message::default()
        .number(1, 1)
        .number(2, 7)
        .bytes(7, &[3])
        .bytes(8, b"S");
    model(
        Message::default()
            .message(1, node("Reshape", &["X", "S"], "Y"))
            .message(5, shape)
            .message(11, value("X", &[None]))
            .message(12, value("Y", &[Some(3)])),
    )
}
