import Foundation

/// What is recorded of the network: how an image becomes its input, and what its output means.
public struct Model: Decodable {
    struct Quantization: Decodable {
        let scale: Double
        let zero_point: Int
    }

    struct Input: Decodable {
        let shape: [Int]
        let layout: String
        let dtype: String
        let colors: String
    }

    struct Preprocessing: Decodable {
        let mean: [Double]
        let std: [Double]
        let interpolation: String
        let crop_pct: Double
        let crop_mode: String
    }

    let file: String
    let size: [Int]
    let input: Input
    let preprocessing: Preprocessing
    let output: String
    public let labels: [String]

    var height: Int { size[0] }
    var width: Int { size[1] }
    var channels: Int { preprocessing.mean.count }
}

public struct Guess {
    public let index: Int
    public let label: String
    public let probability: Double
}

struct Fault: Error, CustomStringConvertible {
    let description: String
}
